//! JSON objects without duplicate names.

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::denied::Denied;

/// Reads a JSON object of a token.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Denied> {
    serde_json::from_slice(bytes).map(|StrictMap(map)| map).map_err(|_| Denied::Malformed)
}

/// A JSON object in which no name occurs twice (RFC 7519, section 4, lets a verifier reject duplicates).
pub(super) struct StrictMap(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for StrictMap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct UniqueNames;
        impl<'de> Visitor<'de> for UniqueNames {
            type Value = StrictMap;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<StrictMap, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name occurs twice"));
                    }
                }
                Ok(StrictMap(map))
            }
        }
        from.deserialize_map(UniqueNames)
    }
}
