//! Fields that cannot make a whole list unreadable.
//!
//! The API server sends a list as one JSON document. With ordinary types one field of an unexpected type, in one
//! object of thousands, fails the document and the agent would learn nothing at all. A [`Lenient`] field takes any
//! JSON value: of the right type it is a value, of another it is remembered as refused and the rest is read on.
//! Only what is not JSON fails, provided that the parts of a [`Lenient`] list or object are lenient too. What a refused field means is decided in [`super::convert`].

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

/// A field as found. `null` counts as absent, as it does for the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Lenient<T> {
    /// Not there, or null.
    #[default]
    Absent,
    /// There, and of the right type.
    Found(T),
    /// There, but of another type.
    Refused {
        /// What stands there, for a person: a scalar as it is, `a list` or `an object`.
        found: Box<str>,
        /// What the type wanted.
        reason: Box<str>,
    },
}

impl<T> Lenient<T> {
    /// The value if it was found, whatever the reason it was not.
    pub fn found(self) -> Option<T> {
        match self {
            Lenient::Found(value) => Some(value),
            Lenient::Absent | Lenient::Refused { .. } => None,
        }
    }

    /// As [`Lenient::found`], borrowed.
    pub fn get(&self) -> Option<&T> {
        match self {
            Lenient::Found(value) => Some(value),
            Lenient::Absent | Lenient::Refused { .. } => None,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Lenient<T>, D::Error> {
        deserializer.deserialize_any(LenientVisitor(PhantomData))
    }
}

struct LenientVisitor<T>(PhantomData<T>);

impl<T> LenientVisitor<T> {
    /// A scalar is read by value: nothing is left in the input if its type does not fit.
    fn scalar<'de, V, E>(value: V, found: impl FnOnce() -> String) -> Result<Lenient<T>, E>
    where
        T: Deserialize<'de>,
        V: IntoDeserializer<'de, E>,
        E: Error,
    {
        Ok(match T::deserialize(value.into_deserializer()) {
            Ok(value) => Lenient::Found(value),
            Err(error) => refused(&found(), &error),
        })
    }
}

fn refused<T>(found: &str, reason: &impl fmt::Display) -> Lenient<T> {
    Lenient::Refused { found: found.into(), reason: reason.to_string().into() }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for LenientVisitor<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Lenient<T>, E> {
        Ok(Lenient::Absent)
    }

    fn visit_none<E: Error>(self) -> Result<Lenient<T>, E> {
        Ok(Lenient::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Lenient<T>, D::Error> {
        Lenient::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Lenient<T>, E> {
        Self::scalar(value, || value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Lenient<T>, E> {
        Self::scalar(value, || value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Lenient<T>, E> {
        Self::scalar(value, || value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Lenient<T>, E> {
        Self::scalar(value, || value.to_string())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Lenient<T>, E> {
        Self::scalar(value, || value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Lenient<T>, E> {
        self.visit_str(&value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lenient<T>, A::Error> {
        let mut begun = false;
        let read = T::deserialize(ListValue(Parts { inner: &mut list, begun: &mut begun }));
        let value = wrong_type_or_error(read, begun, "a list")?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Lenient<T>, A::Error> {
        let mut begun = false;
        let read =
            T::deserialize(MapAccessDeserializer::new(Parts { inner: &mut object, begun: &mut begun }));
        let value = wrong_type_or_error(read, begun, "an object")?;
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(value)
    }
}

/// A type that does not fit says so before it reads a part of the value. An error after that comes from a part, and
/// parts are lenient: it is no JSON.
fn wrong_type_or_error<T, E: Error>(read: Result<T, E>, begun: bool, found: &str) -> Result<Lenient<T>, E> {
    match read {
        Ok(value) => Ok(Lenient::Found(value)),
        Err(error) if begun => Err(error),
        Err(error) => Ok(refused(found, &error)),
    }
}

/// The parts of a list or object, and whether one has been asked for.
struct Parts<'a, A> {
    inner: &'a mut A,
    begun: &'a mut bool,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Parts<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        *self.begun = true;
        self.inner.next_element_seed(seed)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Parts<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        *self.begun = true;
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

/// A list that is no struct; serde would take one as the fields by position.
struct ListValue<A>(A);

impl<'de, A: SeqAccess<'de>> Deserializer<'de> for ListValue<A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_seq(self.0)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        Err(Error::invalid_type(Unexpected::Seq, &visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        number: Lenient<i64>,
        flag: Lenient<bool>,
        text: Lenient<String>,
        list: Lenient<Vec<Lenient<Inner>>>,
    }

    fn read(json: &str) -> Lenient<Inner> {
        serde_json::from_str(json).expect("any JSON is taken")
    }

    #[test]
    fn right_types_are_values() {
        let inner =
            read(r#"{"number": 5, "flag": true, "text": "a\nb", "list": [{"number": -1}, {}], "other": {}}"#);
        let inner = inner.found().expect("an object");
        assert_eq!(inner.number, Lenient::Found(5));
        assert_eq!(inner.flag, Lenient::Found(true));
        assert_eq!(inner.text, Lenient::Found("a\nb".to_owned()));
        let list = inner.list.found().expect("a list");
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].get().expect("an object").number, Lenient::Found(-1));
    }

    #[test]
    fn absent_and_null_are_the_same() {
        assert_eq!(read("{}"), read(r#"{"number": null, "flag": null, "text": null, "list": null}"#));
        assert_eq!(read("null"), Lenient::Absent);
    }

    #[test]
    fn every_wrong_type_leaves_the_rest_readable() {
        for wrong in [
            "1.5",
            "\"x\"",
            "true",
            "7",
            "[1, [2], {\"a\": 3}]",
            "{\"a\": {\"b\": []}}",
            "18446744073709551615",
        ] {
            let json = format!(
                r#"[{{"number": {wrong}, "text": "kept"}}, {{"flag": {wrong}, "text": "kept"}},
                    {{"list": {wrong}, "text": "kept"}}, {{"list": [{wrong}, {{"text": "kept"}}], "text": "kept"}}]"#
            );
            let read: Vec<Inner> = serde_json::from_str(&json).expect("readable");
            assert_eq!(read.len(), 4, "{wrong}");
            assert!(read.iter().all(|inner| inner.text.get().is_some_and(|text| text == "kept")), "{wrong}");
        }
        let Lenient::Refused { found, reason } =
            serde_json::from_str::<Lenient<i64>>("\"80\"").expect("JSON")
        else {
            panic!("a string is not a number");
        };
        assert_eq!(&*found, "80");
        assert!(reason.contains("i64"), "{reason}");
    }

    #[test]
    fn a_list_is_never_an_object_by_position() {
        for list in ["[]", "[5]", "[5, true, \"x\", [], 1, 2, 3]"] {
            let read: Vec<Lenient<Inner>> =
                serde_json::from_str(&format!("[{list}, {{}}]")).expect("readable");
            assert!(matches!(&read[0], Lenient::Refused { found, .. } if &**found == "a list"), "{list}");
            assert_eq!(read[1], Lenient::Found(Inner::default()));
        }
    }

    #[test]
    fn what_is_not_json_fails() {
        for broken in
            [r#"{"number": }"#, r#"{"number": [1, }"#, r#"{"list": [{"flag": }]}"#, r#"{"list": [1 2]}"#, "{"]
        {
            assert!(serde_json::from_str::<Lenient<Inner>>(broken).is_err(), "{broken}");
        }
    }
}
