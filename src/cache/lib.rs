//! Complete responses in memory and on disk, and the fills that fetch them.
//!
//! Owns what is stored, which keys are being fetched, and how a body in transfer is shared by its readers. It keeps each
//! entry's freshness and leaves it to the caller to judge it; it must not know of origins, tokens or sockets.
//!
//! [`Cache::lookup`] returns [`Lookup::Hit`], [`Lookup::Join`] or [`Lookup::Fill`]: however many requests ask for a key,
//! it is fetched once. No lock is held over an await, and nothing polls: a waiting reader is woken by its writer.
#![deny(unsafe_code)]

mod cache;
mod config;
mod cpu_prefetch;
mod disk;
mod entry_id;
mod fill;
mod fill_table;
mod header_block;
mod inline_bytes;
mod key;
mod memory;
mod prefetch_budget;
mod purge;
mod slice_layout;
mod store;
mod stored_response;
mod table;
mod unstored;
mod vary;
mod writer;

pub use cache::{Cache, Lookup};
pub use config::Config;
pub use disk::{DiskConfig, DiskError};
pub use fill::{FillError, FillOutcome, FillPlan, NoReaders, ReadError, Reader, ResponseHead};
pub use header_block::HeaderBlock;
pub use prefetch_budget::{PrefetchTally, PrefetchTicket};
pub use purge::{Purge, PurgeTarget};
pub use slice_layout::SliceLayout;
pub use stored_response::StoredResponse;
pub use table::CacheSlot;
pub use vary::Vary;
pub use writer::Writer;

#[cfg(test)]
mod tests;
