//! Header blocks of answers: made when a response is stored, and copied for each answer.
//!
//! A block depends on the response, and on how its route and the configuration have answers look ([`Route::look`]).

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::config::Auth;
use super::decision::Decision;
use super::route::Route;
use lyceum_cache::{HeaderBlock, Stored};
use lyceum_http::fields;

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

impl Route {
    /// Has the block of a stored response ready before anyone asks for it.
    pub(super) fn prepare(&self, stored: &Stored) {
        self.with_block(stored, |_| ());
    }

    /// Shows the block of a hit on a stored response: the one made for all, unless what answers look like has changed
    /// since then, by another configuration.
    pub(super) fn with_block<T>(&self, stored: &Stored, show: impl FnOnce(&HeaderBlock) -> T) -> T {
        let look = self.look();
        let make = || {
            // RFC 9110, section 8.6: a 204 has no length.
            let length = Some(stored.length()).filter(|_| stored.status != StatusCode::NO_CONTENT);
            let mut block = self.block(&stored.headers, length);
            block.insert(CACHE_STATUS, Decision::HIT.cache_status(stored.status, None));
            HeaderBlock::new(&block, look)
        };
        let block = stored.prepared.get_or_init(make);
        if block.profile == look { show(block) } else { show(&make()) }
    }

    /// A number for what a block depends on beside its response.
    fn look(&self) -> u8 {
        u8::from(self.auth != Auth::None) | u8::from(self.is_uniform()) << 1 | u8::from(self.cors.is_any()) << 2
    }

    /// The header block of a whole answer, but for its age and what goes by the page that asks.
    pub(super) fn block(&self, stored: &HeaderMap, length: Option<u64>) -> HeaderMap {
        // Room for what is added.
        let mut block = HeaderMap::with_capacity(stored.len() + 8);
        block.extend(stored.clone());
        if let Some(length) = length {
            block.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            block.insert(header::ACCEPT_RANGES, BYTES);
        }
        if self.auth != Auth::None {
            block.insert(header::CACHE_CONTROL, private(stored));
            block.remove(header::EXPIRES);
            block.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            block.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            self.cors.uniform(&mut block);
        }
        block
    }

    /// Whether one block serves all pages. Where the origin answers any method for anyone, pages are its own matter.
    pub(super) fn is_uniform(&self) -> bool {
        self.auth == Auth::None || self.cors.is_uniform()
    }
}

/// `Cache-Control` for a client that had to show a token: its own cache alone may keep it.
fn private(stored: &HeaderMap) -> HeaderValue {
    let mut value = String::from("private");
    for member in fields::values(stored, &header::CACHE_CONTROL).flat_map(fields::list) {
        let name = member.split('=').next().unwrap_or(member).trim().to_ascii_lowercase();
        let shared = ["public", "private", "s-maxage", "proxy-revalidate", "stale-while-revalidate", "stale-if-error"];
        if !shared.contains(&name.as_str()) {
            value.push_str(", ");
            value.push_str(member);
        }
    }
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("private, no-store"))
}
