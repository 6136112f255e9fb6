//! The inert pickle reader held against Python's own pickler on thousands of real objects.
//!
//! In: what `pickle` (its C and its Python version) writes of dataclasses, `msgspec` structs, arrays, sets, subclasses
//! and values that contain themselves, whole and cut anywhere. Out: what Python says of the objects, or, of a cut one,
//! the beginning of it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends at its first surprise")]
#![expect(clippy::print_stdout, reason = "a test says what it compared, or why it cannot")]

mod python;

use profiler::server::codec::pickle::{End, Tree, Value};
use serde_json::Value as Said;

fn cases() -> usize {
    std::env::var("GPUSPAN_ORACLE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(3000)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(said: &Said) -> &str {
    said.as_str().unwrap()
}

/// Protocol 2 writes the names that Python 2 had.
fn full_name((module, name): (&str, &str)) -> String {
    let module = match module {
        "__builtin__" => "builtins",
        module => module,
    };
    format!("{module}.{name}")
}

fn decimal(value: Value<'_, '_>) -> String {
    if let Some(small) = value.as_i64() {
        return small.to_string();
    }
    let mut wide = [if value.as_long().unwrap().last().unwrap() & 0x80 == 0 { 0 } else { 0xff }; 16];
    wide[..value.as_long().unwrap().len()].copy_from_slice(value.as_long().unwrap());
    i128::from_le_bytes(wide).to_string()
}

fn all<'t, 'a>(values: impl Iterator<Item = Value<'t, 'a>>, said: &Said) -> Result<(), String>
where
    'a: 't,
{
    let (values, said) = (values.collect::<Vec<_>>(), said.as_array().unwrap());
    if values.len() != said.len() {
        return Err(format!("{} items, not {}", values.len(), said.len()));
    }
    values.into_iter().zip(said).try_for_each(|(value, said)| agrees(value, said))
}

fn pairs(value: Value<'_, '_>, said: &Said) -> Result<(), String> {
    let flat: Vec<_> = value.pairs().flat_map(|(key, value)| [key, value]).collect();
    let said = said.as_array().unwrap().iter().flat_map(|pair| pair.as_array().unwrap()).cloned().collect();
    all(flat.into_iter(), &Said::Array(said))
}

/// Whether the tree's value is what Python said.
fn agrees(value: Value<'_, '_>, said: &Said) -> Result<(), String> {
    let v = &said["v"];
    let same = |is: bool| if is { Ok(()) } else { Err(format!("not {said}")) };
    match text(&said["t"]) {
        "deep" => Ok(()),
        "none" => same(value.is_none()),
        "bool" => same(value.as_bool() == v.as_bool()),
        "int" => same(decimal(value) == text(v)),
        "float" => same(value.is_float() && float(value.as_f64().unwrap()) == text(v)),
        "str" => same(value.as_str() == v.as_str()),
        "bytes" => same(bytes(value).is_some_and(|bytes| hex(&bytes) == text(v))),
        "tuple" | "list" => same(value.is_sequence()).and_then(|()| all(value.items(), v)),
        "set" => {
            let mut items: Vec<_> = set_items(value).collect();
            for said in v.as_array().unwrap() {
                let at = items.iter().position(|item| agrees(*item, said).is_ok());
                items.swap_remove(at.ok_or_else(|| format!("{said} is missing"))?);
            }
            same(items.is_empty())
        }
        "dict" => same(value.is_dict()).and_then(|()| pairs(value, v)),
        "global" => same(value.global().map(full_name).as_deref() == Some(text(v))),
        "call" => {
            let callee = value.callee().and_then(|callee| callee.global()).map(full_name);
            same(callee.as_deref() == v_callee(said))
                .and_then(|()| all(value.arguments().unwrap().items(), v))
        }
        other => object(value, said).map_err(|error| format!("{other}: {error}")),
    }
}

fn v_callee(said: &Said) -> Option<&str> {
    said["callee"].as_str()
}

fn object(value: Value<'_, '_>, said: &Said) -> Result<(), String> {
    let class = value.class().map(full_name);
    if class.as_deref() != said["class"].as_str() {
        return Err(format!("{class:?}, not {}", said["class"]));
    }
    let v = &said["v"];
    match text(&said["t"]) {
        "states" => all(value.state().unwrap().items(), v),
        "filled" if said["pairs"].is_array() => pairs(value, &said["pairs"]),
        "filled" => all(value.items(), v),
        _ => v.as_object().unwrap().iter().try_for_each(|(name, said)| {
            let field = positional(value, name).or_else(|| value.attr(name));
            agrees(field.ok_or_else(|| format!("no {name}"))?, said)
                .map_err(|error| format!("{name}: {error}"))
        }),
    }
}

/// An `array_like` struct is rebuilt by positional arguments.
fn positional<'t, 'a>(value: Value<'t, 'a>, name: &str) -> Option<Value<'t, 'a>> {
    let place = ["rid", "input_ids", "stream"].iter().position(|field| *field == name)?;
    let is_tagged = value.callee()?.global()?.1 == "Tagged";
    value.arguments().filter(|_| is_tagged)?.item(place)
}

/// Python's `float.hex`.
fn float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value == 0.0 {
        return format!("{sign}0x0.0p+0");
    }
    let (exponent, fraction) = ((value.to_bits() >> 52 & 0x7ff) as i64, value.to_bits() & ((1 << 52) - 1));
    format!("{sign}0x1.{fraction:013x}p{:+}", exponent - 1023)
}

/// Bytes as they are, or as the argument of the call that makes a bytearray.
fn bytes(value: Value<'_, '_>) -> Option<Vec<u8>> {
    value.as_bytes().map(<[u8]>::to_vec)
}

fn set_items<'t, 'a>(value: Value<'t, 'a>) -> impl Iterator<Item = Value<'t, 'a>> {
    value.items()
}

fn check(kind: &str, seed: u64, count: usize) {
    let Some(cases) = python::ask(kind, seed, count) else { return };
    let mut total = 0;
    for case in &cases {
        let pickled = unhex(text(&case["pickle"]));
        let tree = Tree::read(&pickled);
        assert_eq!(tree.end(), End::Whole, "{case}");
        assert_eq!(agrees(tree.root().unwrap(), &case["said"]), Ok(()), "{case}");
        total += pickled.len();
    }
    println!("{} pickles, {total} bytes", cases.len());
}

#[test]
fn trees_hold_what_python_pickled() {
    check("trees", 1, cases());
}

#[test]
fn containers_filled_in_batches_are_whole() {
    check("large", 2, 12);
}

#[test]
fn values_that_contain_themselves_end() {
    check("loops", 3, 10);
}

#[test]
fn arrays_of_numpy_show_their_bytes() {
    let Some(cases) = python::ask("numbers", 4, 50) else { return };
    for case in &cases {
        let pickled = unhex(text(&case["pickle"]));
        let tree = Tree::read(&pickled);
        let (root, said) = (tree.root().unwrap(), &case["said"]);
        let callee = root.callee().unwrap().global().map(full_name);
        assert_eq!(callee.as_deref(), said["callee"].as_str());
        let state = root.state().unwrap();
        assert_eq!(state.item(1).unwrap().item(0).unwrap().as_u64(), said["length"].as_u64());
        // Protocol 2 has no bytes: they are a text, and a call that encodes it.
        let encoded = state.item(4).unwrap().arguments().unwrap().item(0).unwrap().as_str().unwrap();
        let bytes: Vec<u8> = encoded.chars().map(|char| char as u8).collect();
        assert_eq!(hex(&bytes), text(&said["bytes"]));
    }
}

/// Whether a value of a cut pickle is the beginning of the whole one.
fn begins(cut: Value<'_, '_>, whole: Value<'_, '_>, depth: u32) -> Result<(), String> {
    if depth > 12 {
        return Ok(());
    }
    let list = |cut: Vec<Value<'_, '_>>, whole: Vec<Value<'_, '_>>| {
        if cut.len() > whole.len() {
            return Err(format!("{} items of {}", cut.len(), whole.len()));
        }
        cut.into_iter().zip(whole).try_for_each(|(cut, whole)| begins(cut, whole, depth + 1))
    };
    if let (Some(part), Some(whole)) = (cut.as_part(), whole.as_part()) {
        return if whole.starts_with(part) { Ok(()) } else { Err("another text".to_owned()) };
    }
    if cut.is_object() && whole.is_object() {
        for (name, value) in cut.attrs() {
            begins(value, whole.attr(name).ok_or(format!("no {name}"))?, depth + 1)?;
        }
        return Ok(());
    }
    if cut.is_dict() && whole.is_dict() {
        let flat = |value: Value<'_, '_>| {
            value.pairs().flat_map(|(key, value)| [key.identity(), value.identity()]).count()
        };
        if flat(cut) > flat(whole) {
            return Err("more pairs".to_owned());
        }
        for ((cut_key, cut), (whole_key, whole)) in cut.pairs().zip(whole.pairs()) {
            begins(cut_key, whole_key, depth + 1)?;
            begins(cut, whole, depth + 1)?;
        }
        return Ok(());
    }
    if cut.is_sequence() && whole.is_sequence() || cut.is_set() && whole.is_set() {
        return list(cut.items().collect(), whole.items().collect());
    }
    if cut.as_part().is_some() && cut.as_long().is_none() && whole.as_i64().is_some() {
        // An integer of which bytes are missing.
        return Ok(());
    }
    let same = cut.as_i64() == whole.as_i64()
        && cut.as_bool() == whole.as_bool()
        && cut.is_none() == whole.is_none();
    // A class whose object was not begun, the arguments of an object that was: there is nothing wrong in them.
    if same || cut.global().is_some() { Ok(()) } else { Err("another value".to_owned()) }
}

/// Cuts of each kind, and how many of them do not begin as the whole does.
fn cut_all(kind: &str, seed: u64, count: usize) -> Option<(u32, u32)> {
    let cases = python::ask(kind, seed, count)?;
    let (mut cuts, mut wrong) = (0, 0);
    for case in &cases {
        let pickled = unhex(text(&case["pickle"]));
        let whole = Tree::read(&pickled);
        for length in (0..pickled.len()).step_by(1 + pickled.len() / 200) {
            let tree = Tree::read(&pickled[..length]);
            assert_eq!(tree.end(), End::Cut, "{length} bytes of {case}");
            let Some(root) = tree.root() else { continue };
            cuts += 1;
            wrong += u32::from(begins(root, whole.root().unwrap(), 0).is_err());
        }
    }
    println!("{kind}: {cuts} cuts, {wrong} of another shape");
    Some((cuts, wrong))
}

#[test]
fn cut_messages_hold_nearly_all_of_the_beginning() {
    let Some((cuts, wrong)) = cut_all("messages", 5, cases() / 10) else { return };
    // Containers of one value are filled without a mark: until then key and value stand behind them.
    assert!(cuts > 1000 && wrong * 20 < cuts, "{wrong} of {cuts} cuts have another shape");
}

#[test]
fn cut_trees_of_any_kind_hold_most_of_the_beginning() {
    let Some((cuts, wrong)) = cut_all("trees", 6, cases() / 10) else { return };
    // Which opcode would have closed a container is a guess: short tuples stand open in their parent, and a class as a
    // value is taken for an object under construction.
    assert!(wrong * 10 < cuts, "{wrong} of {cuts} cuts have another shape");
}
