//! Short names that stay distinguishable: a kernel's mangled name → at most [`MOST`] characters.
//!
//! Return type, parameters and namespaces of arguments go. Template arguments stay from the outside in as long as
//! there is room; what does not fit becomes `…`, and then a hash of the whole name tells it from its likes. A lambda is
//! the function it stands in and its position there. Pure: text in, text out.

use super::demangle;
use cpp_demangle::DemangleOptions;
use std::collections::HashSet;

/// Characters of a short name.
pub const MOST: usize = 96;
/// Template arguments that are considered for showing; what lies deeper is hardly read.
const MOST_ARGUMENTS: usize = 64;
/// How deep arguments are taken apart.
const MOST_DEPTH: usize = 64;
const ELLIPSIS: &str = "…";
/// Room for the hash and its mark.
const HASH: usize = 9;

/// The short name of the kernel with the mangled name `symbol`.
#[must_use]
pub fn short(symbol: &str) -> String {
    let options = DemangleOptions::new().no_params().no_return_type();
    let said = demangle::bounded(symbol, options);
    let pieces = said.as_deref().map_or_else(|| vec![Piece::Text(symbol.to_owned())], function);
    let room = MOST - HASH;
    let (text, whole) = fit(&pieces, room);
    if whole { text } else { format!("{text}~{}", hash(symbol)) }
}

/// A short name with its hash: for the second of two kernels that would be called alike.
#[must_use]
pub fn distinct(symbol: &str) -> String {
    let name = short(symbol);
    let shortened: String = name.chars().take(MOST - HASH).collect();
    if name.contains('~') { name } else { format!("{shortened}~{}", hash(symbol)) }
}

/// The name with every lambda erased: what the host's and the device's name of one kernel share, because a lambda has a
/// name of its own on each side. Different kernels may share it: it compares, and never names.
#[must_use]
pub fn skeleton(symbol: &str) -> String {
    let options = DemangleOptions::new().no_params().no_return_type();
    let said = demangle::bounded(&super::mangle::device_name(symbol), options);
    let mut pieces = said.as_deref().map_or_else(|| vec![Piece::Text(symbol.to_owned())], function);
    erase_lambdas(&mut pieces);
    Rendered::of(&pieces, &mut |_| true).text
}

fn erase_lambdas(pieces: &mut [Piece]) {
    for piece in pieces {
        match piece {
            Piece::Lambda(_) => *piece = Piece::Text("lambda".to_owned()),
            Piece::Group(arguments) => arguments.iter_mut().for_each(|argument| erase_lambdas(argument)),
            Piece::Text(_) | Piece::Lost => {}
        }
    }
}

/// Eight hexadecimal digits that are the same for a name wherever and whenever it is seen.
fn hash(symbol: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, symbol.as_bytes());
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// A name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Template arguments.
    Group(Vec<Vec<Piece>>),
    /// A lambda, as the function it stands in and its place there.
    Lambda(Vec<Piece>),
    /// Something that told the name from others was left out here.
    Lost,
}

/// A function's path: its own namespaces stay, as far as there is room.
fn function(said: &str) -> Vec<Piece> {
    let said = said.replace("(anonymous namespace)::", "");
    let Some((before, inside, after)) = split_group(&said) else {
        return vec![Piece::Text(own_namespaces(&said))];
    };
    let mut pieces = vec![
        Piece::Text(own_namespaces(before)),
        Piece::Group(arguments(inside).into_iter().map(|argument| pieces(argument, 1)).collect()),
    ];
    match after.strip_prefix("::") {
        // A member of a class template: the class's arguments tell its kernels apart.
        Some(member) => {
            pieces.push(Piece::Text("::".to_owned()));
            pieces.extend(function(member));
        }
        None => pieces.push(Piece::Text(after.to_owned())),
    }
    pieces
}

/// Namespaces that only say a version or a file are no part of what a person calls a kernel.
fn own_namespaces(path: &str) -> String {
    let is_noise = |part: &str| {
        let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        ["_V_", "_GLOBAL__N_", "_INTERNAL_"].iter().any(|start| part.starts_with(start))
            || part.strip_prefix("__").is_some_and(is_number)
    };
    path.split("::").filter(|part| !is_noise(part)).collect::<Vec<_>>().join("::")
}

/// A template argument.
fn pieces(argument: &str, depth: usize) -> Vec<Piece> {
    let argument = argument.trim();
    if depth > MOST_DEPTH {
        return vec![Piece::Lost];
    }
    if let Some(lambda) = lambda(argument, depth) {
        return vec![Piece::Lambda(lambda)];
    }
    let Some((before, inside, after)) = split_group(argument) else {
        return vec![Piece::Text(plain(argument))];
    };
    if let Some(member) = after.strip_prefix("::") {
        // Whose member it is: said by the hash.
        return [vec![Piece::Lost], pieces(member, depth + 1)].concat();
    }
    let group = arguments(inside).into_iter().map(|argument| pieces(argument, depth + 1)).collect();
    let mut all = vec![Piece::Text(plain(before)), Piece::Group(group)];
    if !after.trim().is_empty() {
        all.extend(pieces(after, depth + 1));
    }
    all
}

/// Text without namespaces, and numbers without their type.
fn plain(text: &str) -> String {
    const TYPES: [&str; 10] = [
        "(unsigned int)",
        "(unsigned long)",
        "(unsigned short)",
        "(unsigned char)",
        "(signed char)",
        "(char)",
        "(short)",
        "(long)",
        "(long long)",
        "(unsigned long long)",
    ];
    let text = TYPES.iter().find_map(|cast| text.strip_prefix(cast)).unwrap_or(text);
    let digits = text.trim_end_matches(['u', 'l']);
    if digits.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() {
        return digits.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut word = 0;
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        if letter == ':' && rest.peek() == Some(&':') {
            rest.next();
            out.truncate(word);
            continue;
        }
        out.push(letter);
        if !(letter.is_alphanumeric() || letter == '_' || letter == '$') {
            word = out.len();
        }
    }
    out
}

/// `function#position(parameters)` of an argument that is a lambda, as the host or the device calls it. The position is
/// that of each lambda on the way from the function to this one.
fn lambda(argument: &str, depth: usize) -> Option<Vec<Piece>> {
    if argument.starts_with("__nv_dl_wrapper_t<") || argument.starts_with("__nv_hdl_wrapper_t<") {
        return host_lambda(argument, depth);
    }
    const START: &str = "{lambda(";
    argument.ends_with('}').then_some(())?;
    let mut parts = outer(&brackets(argument)?);
    parts.retain(|(open, _)| argument.get(*open..).is_some_and(|rest| rest.starts_with(START)));
    let (first, last) = (parts.first()?.0, *parts.last()?);
    let text = |(open, close): &(usize, usize)| argument.get(*open..*close);
    let positions: Vec<&str> =
        parts.iter().filter_map(|part| Some(text(part)?.rsplit_once('#')?.1)).collect();
    let parameters = text(&last)?.strip_prefix(START)?.rsplit_once(")#")?.0;
    let mut all = owner(argument.get(..first)?, depth);
    all.push(Piece::Text(format!("#{}(", positions.join("."))));
    for (index, parameter) in arguments(parameters).into_iter().enumerate() {
        if index > 0 {
            all.push(Piece::Text(",".to_owned()));
        }
        all.extend(pieces(parameter, depth + 1));
    }
    all.push(Piece::Text(")".to_owned()));
    Some(all)
}

/// nvcc's `__nv_[h]dl_wrapper_t<…, __nv_dl_tag<type, &function, position>, signature, captures…>`.
fn host_lambda(argument: &str, depth: usize) -> Option<Vec<Piece>> {
    let (_, inside, _) = split_group(argument)?;
    let mut all = arguments(inside).into_iter().skip_while(|argument| !argument.starts_with("__nv_dl_t"));
    let (_, inside, _) = split_group(all.next()?)?;
    let [_, function, position, ..] = *arguments(inside) else { return None };
    let function = function.trim_start_matches('&');
    let function = function.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(function);
    let mut pieces_of = owner(function, depth);
    pieces_of.push(Piece::Text(format!("#{}", plain(position))));
    let rest: Vec<_> = all.map(|argument| pieces(argument, depth + 1)).collect();
    if !rest.is_empty() {
        pieces_of.push(Piece::Group(rest));
    }
    Some(pieces_of)
}

/// The function that a lambda stands in: the last part of its path, without return type and parameters. An operator
/// is called as its class.
fn owner(path: &str, depth: usize) -> Vec<Piece> {
    let path = path.trim().trim_end_matches("::");
    let outer = brackets(path).map(|pairs| outer(&pairs)).unwrap_or_default();
    let within = |at: usize| outer.iter().any(|(open, close)| (*open..*close).contains(&at));
    let ends: Vec<usize> = path.match_indices("::").map(|(at, _)| at).filter(|at| !within(*at)).collect();
    let starts = ends.iter().map(|end| end + 2).rev().chain([0]);
    let mut ends = std::iter::once(path.len()).chain(ends.iter().copied().rev());
    let part = starts
        .filter_map(|start| path.get(start..ends.next()?))
        .find(|part| !part.starts_with("operator"))
        .unwrap_or(path);
    let parenthesis = brackets(part).map(|pairs| self::outer(&pairs)).unwrap_or_default();
    let cut = parenthesis.iter().find(|(open, _)| part.as_bytes().get(*open) == Some(&b'('));
    let part = cut.and_then(|(open, _)| part.get(..*open)).unwrap_or(part);
    let is_inside = |at: &usize| parenthesis.iter().any(|(open, close)| (open..close).contains(&at));
    let space = part.rmatch_indices(' ').map(|(at, _)| at).find(|at| !is_inside(at));
    pieces(space.and_then(|space| part.get(space + 1..)).unwrap_or(part), depth + 1)
}

/// The pairs that lie in no other, in order.
fn outer(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut sorted = pairs.to_vec();
    sorted.sort_unstable();
    let mut end = 0;
    sorted.retain(|(open, close)| {
        let is_outer = *open >= end;
        end = end.max(*close);
        is_outer
    });
    sorted
}

/// Before, inside and after the first pair of angle brackets that belong together.
fn split_group(text: &str) -> Option<(&str, &str, &str)> {
    let brackets = brackets(text)?;
    let (open, close) =
        brackets.into_iter().filter(|(open, _)| text.as_bytes().get(*open) == Some(&b'<')).min()?;
    Some((text.get(..open)?, text.get(open + 1..close)?, text.get(close + 1..)?))
}

/// Where brackets open and close; none where they do not match.
fn brackets(text: &str) -> Option<Vec<(usize, usize)>> {
    let mut open = Vec::new();
    let mut pairs = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if let Some(length) = operator_name(text, at) {
            at += length;
            continue;
        }
        match byte {
            b'<' | b'(' | b'[' | b'{' => open.push((at, *byte)),
            b'-' if bytes.get(at + 1) == Some(&b'>') => at += 1,
            // Within parentheses it is a comparison.
            b'>' if open.last().is_some_and(|(_, kind)| *kind != b'<') => {}
            b'>' | b')' | b']' | b'}' => pairs.push((open.pop()?.0, at)),
            _ => {}
        }
        at += 1;
    }
    open.is_empty().then_some(pairs)
}

/// The length of an operator's name that has brackets in it.
fn operator_name(text: &str, at: usize) -> Option<usize> {
    const NAMES: [&str; 10] = [
        "operator()",
        "operator[]",
        "operator<=>",
        "operator<<=",
        "operator>>=",
        "operator<<",
        "operator>>",
        "operator->",
        "operator<",
        "operator>",
    ];
    let rest = text.get(at..).filter(|rest| rest.starts_with("operator"))?;
    NAMES.iter().find(|name| rest.starts_with(**name)).map(|name| name.len())
}

/// Arguments between commas that are in no brackets.
fn arguments(inside: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut depth = 0_u32;
    let bytes = inside.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if let Some(length) = operator_name(inside, at) {
            at += length;
            continue;
        }
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'-' if bytes.get(at + 1) == Some(&b'>') => at += 1,
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                found.extend(inside.get(start..at).map(str::trim));
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    found.extend(inside.get(start..).map(str::trim).filter(|last| !last.is_empty()));
    found
}

/// The fullest text of at most `room` characters, and whether nothing was left out.
fn fit(pieces: &[Piece], room: usize) -> (String, bool) {
    let everything = Rendered::of(pieces, &mut |_| true);
    if everything.whole && everything.characters() <= MOST {
        return (everything.text, true);
    }
    // Without its own namespaces there is more room for arguments. Those are shown from the outside in, each that fits.
    let pieces = without_namespaces(pieces);
    let mut shown = HashSet::new();
    for index in by_depth(&pieces) {
        shown.insert(index);
        if Rendered::of(&pieces, &mut |argument| shown.contains(&argument)).characters() > room {
            shown.remove(&index);
        }
    }
    let rendered = Rendered::of(&pieces, &mut |argument| shown.contains(&argument));
    (rendered.text.chars().take(room).collect(), false)
}

fn without_namespaces(pieces: &[Piece]) -> Vec<Piece> {
    let mut pieces = pieces.to_vec();
    if let Some(Piece::Text(path)) = pieces.first_mut()
        && let Some(own) = path.rsplit("::").next()
    {
        *path = own.to_owned();
    }
    pieces
}

/// The numbers of arguments in the order of the text, outer ones first.
fn by_depth(pieces: &[Piece]) -> Vec<usize> {
    fn walk(pieces: &[Piece], depth: usize, next: &mut usize, found: &mut Vec<(usize, usize)>) {
        for piece in pieces {
            match piece {
                Piece::Lambda(all) => walk(all, depth, next, found),
                Piece::Group(arguments) => {
                    for argument in arguments {
                        found.push((depth, *next));
                        *next += 1;
                        walk(argument, depth + 1, next, found);
                    }
                }
                Piece::Text(_) | Piece::Lost => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(pieces, 0, &mut 0, &mut found);
    found.sort_unstable();
    found.into_iter().map(|(_, index)| index).take(MOST_ARGUMENTS).collect()
}

struct Rendered {
    text: String,
    whole: bool,
    /// Arguments so far.
    next: usize,
}

impl Rendered {
    fn of(pieces: &[Piece], shown: &mut dyn FnMut(usize) -> bool) -> Self {
        let mut rendered = Self { text: String::new(), whole: true, next: 0 };
        rendered.write(pieces, true, shown);
        rendered
    }

    fn characters(&self) -> usize {
        self.text.chars().count()
    }

    /// Writes what is `visible`, and counts the arguments of all.
    fn write(&mut self, pieces: &[Piece], visible: bool, shown: &mut dyn FnMut(usize) -> bool) {
        for piece in pieces {
            match piece {
                Piece::Text(text) if visible => self.text.push_str(text),
                Piece::Text(_) => {}
                Piece::Lost => self.whole = false,
                Piece::Lambda(pieces) => self.write(pieces, visible, shown),
                Piece::Group(arguments) => self.group(arguments, visible, shown),
            }
        }
    }

    fn group(&mut self, arguments: &[Vec<Piece>], visible: bool, shown: &mut dyn FnMut(usize) -> bool) {
        let open = if visible { "<" } else { "" };
        self.text.push_str(open);
        let mut gap = false;
        for (index, argument) in arguments.iter().enumerate() {
            let is_shown = visible && shown(self.next);
            self.next += 1;
            if visible && index > 0 && (is_shown || !gap) {
                self.text.push_str(", ");
            }
            if visible && !is_shown && !gap {
                self.text.push_str(ELLIPSIS);
            }
            self.whole &= is_shown || !visible;
            gap = !is_shown;
            self.write(argument, is_shown, shown);
        }
        self.text.push_str(if visible { ">" } else { "" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_say_what_matters() {
        for (symbol, name) in [
            ("_Z4gemmIfEvPKT_S2_PS0_", "gemm<float>"),
            ("_Z13quantize_q8_1PKfPvlllllj5uint3", "quantize_q8_1"),
            ("plain_c", "plain_c"),
            (
                "_ZN2at6native13reduce_kernelILi256ELi2ENS0_8ReduceOpIlNS0_6MaxOpsIlEEjlLi4ELi4EEEEEvT1_",
                "at::native::reduce_kernel<256, 2, ReduceOp<long, MaxOps<long>, unsigned int, long, 4, 4>>",
            ),
            (
                "_ZN43_GLOBAL__N__f71e7945_10_SoftMax_cu_9f978f6320softmax_warp_forwardIN3c108BFloat16ES2_fLi5ELb0ELb0ELi32EEEvPT0_PKT_iiiPKbib",
                "softmax_warp_forward<BFloat16, BFloat16, float, 5, false, false, 32>",
            ),
            ("_Z4withIL5Color0EZ4mainEUliE_EvT0_", "with<(Color)0, main#1(int)>"),
        ] {
            assert_eq!(short(symbol), name);
        }
    }

    #[test]
    fn a_lambda_is_its_function_and_its_place() {
        let of = |symbol| short(symbol);
        let device = "_ZN2at6native29vectorized_elementwise_kernelILi4EZZZNS0_51_GLOBAL__N__7b48bba2_12_PowKernel_cu_e5d96c45_5803724pow_tensor_tensor_kernelERNS_18TensorIteratorBaseEENKUlvE_clEvENKUlvE9_clEvEUlN3c108BFloat16ES8_E_St5arrayIPcLm3EELb0EEEviT0_T1_";
        let host = "_ZN2at6nativeL29vectorized_elementwise_kernelILi4E18__nv_hdl_wrapper_tILb0ELb0ELb0E11__nv_dl_tagIPFvRNS_18TensorIteratorBaseEEXadL_ZNS0_51_GLOBAL__N__7b48bba2_12_PowKernel_cu_e5d96c45_5803724pow_tensor_tensor_kernelES5_EELj11EEFN3c108BFloat16ESB_SB_EJEESt5arrayIPcLm3EELb0EEEviT0_T1_";
        assert!(of(device).contains("pow_tensor_tensor_kernel#1.11.1(BFloat16,BFloat16)"), "{}", of(device));
        assert!(of(host).contains("pow_tensor_tensor_kernel#11"), "{}", of(host));
        assert_eq!(skeleton(host), skeleton(device));
        assert!(skeleton(host).starts_with("at::native::vectorized_elementwise_kernel<4, lambda, "));
    }

    #[test]
    fn what_is_left_out_is_in_the_hash() {
        let with = |tile: &str| {
            let inner: String = (0..30).map(|i| format!("Li{i}E")).collect();
            short(&format!("_Z6kernelI4TileIJ{inner}Li{tile}EEEEvT_"))
        };
        let (one, other) = (with("64"), with("128"));
        assert!(one.contains('~') && one.contains(ELLIPSIS) && one.starts_with("kernel<Tile<0, 1"), "{one}");
        assert_ne!(one, other);
        assert!(one.chars().count() <= MOST && other.chars().count() <= MOST);
        assert_eq!(one, with("64"), "the same wherever it is seen");
    }

    #[test]
    fn two_kernels_of_one_short_name_are_told_apart() {
        assert_eq!(short("_Z4gemmPf"), short("_Z4gemmPd"));
        assert_ne!(distinct("_Z4gemmPf"), distinct("_Z4gemmPd"));
        assert!(distinct("_Z4gemmPf").starts_with("gemm~"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_short_name(text in "[ -~…]{0,200}", tail in "[A-Za-z0-9_]{0,200}") {
            for symbol in [text.clone(), format!("_Z{tail}"), format!("_ZN2at6nativeI{tail}E{text}")] {
                proptest::prop_assert!(short(&symbol).chars().count() <= MOST, "{}", short(&symbol));
                proptest::prop_assert!(distinct(&symbol).chars().count() <= MOST);
            }
            let all = function(&text);
            fit(&all, MOST);
            pieces(&text, 0);
        }
    }
}
