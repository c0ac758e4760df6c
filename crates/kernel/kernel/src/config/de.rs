//! A serde deserializer over the merged tree in which text is read as the target type asks.

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde_json::Value as Json;

use super::fault::{At, Fault, Notes};
use super::node::{Node, Value};

/// Reads one node.
pub(super) struct Reader<'a> {
    node: &'a Node,
    at: &'a At<'a>,
    notes: &'a Notes,
}

impl<'a> Reader<'a> {
    pub(super) fn root(node: &'a Node, notes: &'a Notes) -> Self {
        Self { node, at: &At::Root, notes }
    }

    fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn over<'b>(&self, node: &'b Node) -> Reader<'b>
    where
        'a: 'b,
    {
        Reader { node, at: self.at, notes: self.notes }
    }

    /// The JSON that a text spells, when it starts like JSON.
    fn json(&self, opening: char) -> Result<Option<Node>, Fault> {
        let Some(text) = self.text().map(str::trim).filter(|text| text.starts_with(opening)) else {
            return Ok(None);
        };
        let json: Json = serde_json::from_str(text).map_err(|error| {
            let mut fault = Fault::new(format!("not JSON: {error}")).at(self.at);
            fault.unquoted = Some("not JSON".to_owned());
            fault
        })?;
        Ok(Some(Node::from_json(json, &self.node.source)))
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else { return self.deserialize_any(visitor) };
        let word = text.trim();
        let read = if let Ok(number) = word.parse::<u64>() {
            visitor.visit_u64(number)
        } else if let Ok(number) = word.parse::<i64>() {
            visitor.visit_i64(number)
        } else {
            Err(de::Error::invalid_value(Unexpected::Str(text), &visitor))
        };
        read.map_err(|fault: Fault| fault.at(self.at))
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else { return self.deserialize_any(visitor) };
        let read = match text.trim().parse::<f64>() {
            Ok(number) => visitor.visit_f64(number),
            Err(_) => Err(de::Error::invalid_value(Unexpected::Str(text), &visitor)),
        };
        read.map_err(|fault: Fault| fault.at(self.at))
    }

    fn sequence<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Some(array) = self.json('[')? {
            return self.over(&array).deserialize_any(visitor);
        }
        let Some(text) = self.text() else { return self.deserialize_any(visitor) };
        let words = text.split(',').map(str::trim).filter(|_| !text.trim().is_empty());
        let items: Vec<Node> =
            words.map(|word| Node::new(Value::Text(word.to_owned()), self.node.source.clone())).collect();
        let read =
            visitor.visit_seq(Items { rest: items.iter().enumerate(), at: self.at, notes: self.notes });
        read.map_err(|fault: Fault| fault.at(self.at))
    }

    fn entries<'de, V: Visitor<'de>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let Some(table) = self.json('{')? {
            return self.over(&table).entries(known, visitor);
        }
        if known.is_some() && matches!(self.node.value, Value::Array(_)) {
            // serde would take the items for the fields in their order.
            let fault: Fault = de::Error::invalid_type(Unexpected::Seq, &visitor);
            return Err(fault.at(self.at));
        }
        let Some(table) = self.node.as_table() else { return self.deserialize_any(visitor) };
        let entries = Entries { rest: table.iter(), next: None, known, at: self.at, notes: self.notes };
        visitor.visit_map(entries).map_err(|fault: Fault| fault.at(self.at))
    }
}

macro_rules! delegate {
    ($to:ident: $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.$to(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let read = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., Some(number)) => visitor.visit_f64(number),
                _ => Err(de::Error::custom(format_args!("the number {number} is out of range"))),
            },
            Value::String(text) | Value::Text(text) => visitor.visit_str(text),
            Value::Array(items) => {
                visitor.visit_seq(Items { rest: items.iter().enumerate(), at: self.at, notes: self.notes })
            }
            Value::Table(_) => return self.entries(None, visitor),
        };
        read.map_err(|fault: Fault| fault.at(self.at))
    }

    delegate!(integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128);
    delegate!(float: deserialize_f32 deserialize_f64);
    delegate!(sequence: deserialize_seq);
    delegate!(deserialize_any: deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_identifier);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else { return self.deserialize_any(visitor) };
        let read = match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "y" | "on" => visitor.visit_bool(true),
            "false" | "0" | "no" | "n" | "off" => visitor.visit_bool(false),
            _ => Err(de::Error::invalid_value(Unexpected::Str(text), &visitor)),
        };
        read.map_err(|fault: Fault| fault.at(self.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let none = match &self.node.value {
            Value::Null => true,
            Value::Text(text) => text.trim().is_empty(),
            _ => false,
        };
        if none { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text() {
            Some(text) if text.trim().is_empty() => visitor.visit_unit(),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let at = self.at;
        visitor.visit_newtype_struct(self).map_err(|fault: Fault| fault.at(at))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.sequence(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.sequence(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.entries(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.entries(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let Some(table) = self.json('{')? {
            return self.over(&table).deserialize_enum(name, variants, visitor);
        }
        let read = match &self.node.value {
            Value::String(text) => {
                visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(text.as_str()))
            }
            Value::Text(text) => {
                visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(text.trim()))
            }
            Value::Table(table) => match (table.first(), table.len()) {
                (Some((variant, content)), 1) => {
                    visitor.visit_enum(Variant { name: variant, content, at: self.at, notes: self.notes })
                }
                _ => Err(de::Error::custom(format_args!("expected one of {}", variants.join(", ")))),
            },
            _ => return self.deserialize_any(visitor),
        };
        read.map_err(|fault: Fault| fault.at(self.at))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

struct Items<'a, I> {
    rest: I,
    at: &'a At<'a>,
    notes: &'a Notes,
}

impl<'de, 'a, I: Iterator<Item = (usize, &'a Node)>> SeqAccess<'de> for Items<'a, I> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        let at = At::Index(self.at, index);
        let read = seed.deserialize(Reader { node, at: &at, notes: self.notes });
        read.map(Some).map_err(|fault| fault.at(&at))
    }
}

struct Entries<'a, I> {
    rest: I,
    next: Option<(&'a str, &'a Node)>,
    /// The names a struct knows; a map knows none and takes all.
    known: Option<&'static [&'static str]>,
    at: &'a At<'a>,
    notes: &'a Notes,
}

impl<'de, 'a, I: Iterator<Item = (&'a String, &'a Node)>> MapAccess<'de> for Entries<'a, I> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        for (key, node) in self.rest.by_ref() {
            let at = At::Key(self.at, key);
            if let Some(known) = self.known.filter(|known| !known.contains(&key.as_str())) {
                self.notes.unknown(node, &at, key, known);
                continue;
            }
            self.next = Some((key, node));
            let read = seed.deserialize(StrDeserializer::<Fault>::new(key));
            return read.map(Some).map_err(|fault| fault.at(&at));
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((key, node)) = self.next.take() else {
            return Err(de::Error::custom("a value without its key"));
        };
        let at = At::Key(self.at, key);
        seed.deserialize(Reader { node, at: &at, notes: self.notes }).map_err(|fault| fault.at(&at))
    }
}

struct Variant<'a> {
    name: &'a str,
    content: &'a Node,
    at: &'a At<'a>,
    notes: &'a Notes,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        Ok((seed.deserialize(StrDeserializer::<Fault>::new(self.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        de::Deserialize::deserialize(Reader {
            node: self.content,
            at: &At::Key(self.at, self.name),
            notes: self.notes,
        })
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        let at = At::Key(self.at, self.name);
        seed.deserialize(Reader { node: self.content, at: &at, notes: self.notes })
            .map_err(|fault| fault.at(&at))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        Reader { node: self.content, at: &At::Key(self.at, self.name), notes: self.notes }.sequence(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        Reader { node: self.content, at: &At::Key(self.at, self.name), notes: self.notes }
            .entries(Some(fields), visitor)
    }
}
