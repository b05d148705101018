//! Settings in files: as a map with the keys of the table, or as a URL.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::keys::{self, Key, Value};
use super::settings::Settings;

impl Serialize for Settings {
    /// Writes the keys that are set, without the password.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let given: Vec<_> = keys::given(self).collect();
        let mut map = serializer.serialize_map(Some(given.len()))?;
        for (key, value) in given {
            map.serialize_entry(key.name, &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Settings {
    /// Reads a map of the keys, or a URL.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SettingsVisitor)
    }
}

struct SettingsVisitor;

impl<'de> Visitor<'de> for SettingsVisitor {
    type Value = Settings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings of a mail server, or its URL")
    }

    fn visit_str<E: de::Error>(self, url: &str) -> Result<Settings, E> {
        Settings::from_url(url).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
        let mut settings = Settings::default();
        while let Some(name) = map.next_key::<String>()? {
            let key = Key::find(&name, |_| true)
                .map_err(|unknown| de::Error::custom(crate::Error::from(unknown)))?;
            if let Some(value) = map.next_value_seed(ValueOf(key))? {
                key.set(&mut settings, value).map_err(de::Error::custom)?;
            }
        }
        Ok(settings)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(list) => list.serialize(serializer),
            // Files have integers where there is no fraction.
            Value::Number(number) if number.fract() == 0.0 => {
                serializer.serialize_u64(*number as u64)
            }
            Value::Number(number) => serializer.serialize_f64(*number),
            Value::Flag(yes) => serializer.serialize_bool(*yes),
        }
    }
}

/// Reads the value of a key, which errors name; `None` for null.
#[derive(Clone, Copy)]
struct ValueOf(&'static Key);

impl<'de> DeserializeSeed<'de> for ValueOf {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueOf {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.0.name;
        write!(
            f,
            "{key} to be a text, a number, true or false, or a list of texts"
        )
    }

    fn visit_none<E: de::Error>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<Value>, E> {
        Ok(Some(Value::Text(text.to_owned())))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Option<Value>, E> {
        Ok(Some(Value::Text(text)))
    }

    fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Option<Value>, E> {
        Ok(Some(Value::Flag(yes)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Option<Value>, E> {
        Ok(Some(Value::Number(number as f64)))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Option<Value>, E> {
        Ok(Some(Value::Number(number as f64)))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Option<Value>, E> {
        Ok(Some(Value::Number(number)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Option<Value>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(self)? {
            match element {
                Some(Value::Text(text)) => list.push(text),
                // Not shown: it may be a password.
                _ => {
                    let message = format!("an element of {} is not a text", self.0.name);
                    return Err(de::Error::custom(message));
                }
            }
        }
        Ok(Some(Value::List(list)))
    }
}
