//! Random messages, as clients and servers write them and as nobody should.
//!
//! In: a seed. Out: bytes, and where to split them. The same seed draws the same.

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Draw(pub u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Splits into at most `most` parts; half the time not at all, sometimes byte by byte.
    pub fn split(&mut self, bytes: &[u8], most: usize) -> Vec<Vec<u8>> {
        if self.chance(5) {
            return bytes.chunks(1).map(<[u8]>::to_vec).collect();
        }
        let mut cuts: Vec<usize> = (0..self.below(most)).map(|_| self.below(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).filter(|part| !part.is_empty()).collect()
    }
}

const METHODS: [&str; 9] = ["GET", "POST", "POST", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"];
const TARGETS: [&str; 9] = [
    "/v1/chat/completions",
    "/",
    "/a?b=c",
    "/a%20b/../c",
    "*",
    "http://example.org:8000/x?y#z",
    "http://example.org",
    "/x?u=http://y/",
    "/models/org/m",
];
const HEADERS: [&str; 13] = [
    "User-Agent: curl/8",
    "Accept: */*",
    "X-Request-Id: r-1",
    "x-request-id:r-2",
    "X-Request-ID:  spaced \t ",
    "Cookie: a=b; c=\"d\"",
    "Empty:",
    "User-Agent: h\u{e9}",
    "Expect: 100-continue",
    "Connection: keep-alive",
    "Accept-Encoding: gzip",
    "X-Long: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
    "Content-Type: application/json",
];
/// What hostile and careless senders put where it does not belong.
const ODDITIES: [&str; 32] = [
    "\r",
    "\n",
    "\r\n",
    " ",
    "\t",
    ":",
    "\0",
    "0",
    "5",
    "f",
    ";",
    ",",
    "\u{7f}",
    "\r\n\r\n",
    "\r\n ",
    "0\r\n\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 03\r\n",
    "Content-Length: 3, 3\r\n",
    "Content-Length: -1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Connection: close\r\n",
    "HTTP/1.0",
    "HTTP/2.0",
    "GET / HTTP/1.1\r\n",
    "Host: x\r\n",
    "\u{e9}",
    "Folded: a\r\n b\r\n",
    "\r\n\r\n",
];

fn body(draw: &mut Draw) -> String {
    let text = "x\\\"y ".repeat(draw.below(40));
    format!(r#"{{"model":"m{}","prompt":"{text}","n":{}}}"#, draw.below(1000), draw.below(9))
}

fn chunks(draw: &mut Draw, body: &str) -> String {
    let mut out = String::new();
    for part in draw.split(body.as_bytes(), 5) {
        let part = String::from_utf8(part).unwrap();
        let extension = draw.one(&["", "", "", ";a", ";a=b", ";a=\"b;c\""]);
        let size = if draw.chance(20) { format!("{:04X}", part.len()) } else { format!("{:x}", part.len()) };
        out += &format!("{size}{extension}\r\n{part}\r\n");
    }
    out + draw.one(&[
        "0\r\n\r\n",
        "0\r\n\r\n",
        "0;x=y\r\n\r\n",
        "0\r\nTrailer: a\r\nX-Y: b\r\n\r\n",
        "000\r\n\r\n",
    ])
}

fn headers(draw: &mut Draw, most: usize) -> String {
    (0..draw.below(most)).map(|_| draw.one(&HEADERS).to_owned() + "\r\n").collect()
}

fn request(draw: &mut Draw) -> String {
    let version = if draw.chance(10) { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut head = format!("{} {} {version}\r\nHost: h:8000\r\n", draw.one(&METHODS), draw.one(&TARGETS));
    head += &headers(draw, 5);
    if draw.chance(6) {
        head += "Connection: close\r\n";
    }
    let body = body(draw);
    match draw.below(4) {
        0 => head + "\r\n",
        1 => {
            let framed = chunks(draw, &body);
            head + "Transfer-Encoding: chunked\r\n\r\n" + &framed
        }
        _ => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
    }
}

/// What one client sends on a connection, not always by the rules.
pub fn requests(draw: &mut Draw, hostile: bool) -> Vec<u8> {
    let all: String = (0..=draw.below(4)).map(|_| request(draw)).collect();
    if hostile { mutate(draw, all.into_bytes()) } else { all.into_bytes() }
}

/// A response, interim ones before it.
pub fn response(draw: &mut Draw, hostile: bool) -> Vec<u8> {
    let mut all = String::new();
    while draw.chance(15) {
        all += draw.one(&["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"]);
    }
    let status = draw.one(&[
        "200 OK",
        "200 OK",
        "200 OK",
        "204 No Content",
        "304 Not Modified",
        "404 x",
        "503 ",
        "413",
        "101 S",
    ]);
    let version = if draw.chance(15) { "HTTP/1.0" } else { "HTTP/1.1" };
    all += &format!("{version} {status}\r\n");
    all += &headers(draw, 4);
    let body = body(draw);
    all += &match draw.below(4) {
        0 => "\r\n".to_owned() + &body,
        1 => {
            let framed = chunks(draw, &body);
            "Transfer-Encoding: chunked\r\n\r\n".to_owned() + &framed
        }
        2 => format!("Content-Length: {}\r\n\r\n{}", body.len(), &body[..body.len() - draw.below(4)]),
        _ => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
    };
    if hostile { mutate(draw, all.into_bytes()) } else { all.into_bytes() }
}

fn mutate(draw: &mut Draw, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=draw.below(3) {
        // Heads are short beside bodies, and what breaks them matters more.
        let end = if draw.chance(60) { bytes.len().min(160) } else { bytes.len() };
        let at = draw.below(end);
        let len = draw.below(4).min(bytes.len() - at);
        match draw.below(4) {
            0 => drop(bytes.drain(at..at + len)),
            1 => bytes[at] ^= 1 << draw.below(8),
            2 => {
                let again = bytes[at..at + len].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let at = if draw.chance(60) { line_start(&bytes, at) } else { at };
                bytes.splice(at..at, draw.one(&ODDITIES).bytes());
            }
        }
    }
    bytes
}

fn line_start(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |line| line + 1)
}
