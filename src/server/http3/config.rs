//! `http3` of a listener.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// `http3` of a listener: `true`, `false`, or `{ advertise_port }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http3 {
    /// Not spoken.
    #[default]
    Off,
    /// Spoken on the listener's own port.
    On {
        /// The port that `Alt-Svc` names, where clients come by another than the listener's.
        advertise_port: Option<u16>,
    },
}

impl<'de> Deserialize<'de> for Http3 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            advertise_port: u16,
        }
        struct SwitchOrTable;
        impl<'de> Visitor<'de> for SwitchOrTable {
            type Value = Http3;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or { advertise_port = 443 }")
            }
            fn visit_bool<E>(self, on: bool) -> Result<Http3, E> {
                Ok(if on { Http3::On { advertise_port: None } } else { Http3::Off })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Http3, A::Error> {
                let Table { advertise_port } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Http3::On { advertise_port: Some(advertise_port) })
            }
        }
        from.deserialize_any(SwitchOrTable)
    }
}
