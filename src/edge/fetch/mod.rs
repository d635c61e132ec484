//! From a cache key to a response: lookup in the cache, fills from the origins, slices of large responses.

pub(crate) mod fetcher;
pub(crate) mod fill;
pub(crate) mod key;
pub(crate) mod lookup;
pub(crate) mod origin_response;
pub(crate) mod prefetch;
pub(crate) mod request_headers;
pub(crate) mod slice;
pub(crate) mod transfer;
