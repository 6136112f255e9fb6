//! A small writer of MessagePack, and messages made with it: for what no recording has.

/// A value.
#[derive(Clone, Debug)]
pub enum Write {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Write>),
    Map(Vec<(&'static str, Write)>),
}

pub use Write::{Bool, Float, Int, Nil};

pub fn text(text: &str) -> Write {
    Write::Text(text.to_owned())
}

pub fn list(items: Vec<Write>) -> Write {
    Write::List(items)
}

pub fn map(items: Vec<(&'static str, Write)>) -> Write {
    Write::Map(items)
}

impl Write {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        bytes
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Nil => bytes.push(0xc0),
            Bool(value) => bytes.push(0xc2 + u8::from(*value)),
            Int(value @ 0..128) => bytes.push(*value as u8),
            Int(value) => {
                bytes.push(0xd3);
                bytes.extend(value.to_be_bytes());
            }
            Float(value) => {
                bytes.push(0xcb);
                bytes.extend(value.to_be_bytes());
            }
            Self::Text(text) => {
                bytes.push(0xda);
                bytes.extend((text.len() as u16).to_be_bytes());
                bytes.extend(text.bytes());
            }
            Self::List(items) => {
                match items.len() {
                    few @ 0..16 => bytes.push(0x90 | few as u8),
                    many => {
                        bytes.push(0xdc);
                        bytes.extend((many as u16).to_be_bytes());
                    }
                }
                items.iter().for_each(|item| item.put(bytes));
            }
            Self::Map(items) => {
                bytes.push(0xde);
                bytes.extend((items.len() as u16).to_be_bytes());
                for (key, value) in items {
                    text(key).put(bytes);
                    value.put(bytes);
                }
            }
        }
    }

    /// The item at a place, to alter it.
    pub fn at(&mut self, place: usize) -> &mut Write {
        match self {
            Self::List(items) => &mut items[place],
            other => panic!("{other:?} has no items"),
        }
    }

    /// The items, to alter them.
    pub fn items(&mut self) -> &mut Vec<Write> {
        match self {
            Self::List(items) => items,
            other => panic!("{other:?} has no items"),
        }
    }
}
