//! From an upload that is whole to a lesson that is ready: composes uploads, store, catalogue and queue.
//!
//! | step | file |
//! |---|---|
//! | an upload begins, within its owner's quota | `beginning`, `quota` |
//! | bytes come in; a whole upload becomes a version, and a probe is queued | `intake` |
//! | what the probe found becomes a plan and its tasks | `planning` |
//! | workers renew leases, hand objects over, complete tasks or give them up | `tasks` |
//! | objects are committed; the finished playlists are stored, and the version is ready | `publish` |
//! | a creator adds subtitles or removes them | `subtitles` |
//! | a version fails, or is tried again | `failure` |
//! | the store lost a recording | `loss` |
//! | what was deleted or replaced is removed | `cleanup` |
//!
//! Each step is one transaction and can be repeated: after a crash anywhere, what the catalogue says is enough to go
//! on, for this origin or another. Nothing here knows HTTP; errors are
//! [`error::IngestError`], and those of [`beginning`] and [`subtitles`].

pub(crate) mod beginning;
pub(crate) mod cleanup;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod failure;
pub(crate) mod intake;
mod json;
pub(crate) mod loss;
pub(crate) mod object_keys;
pub(crate) mod planning;
pub(crate) mod publish;
pub(crate) mod quota;
pub(crate) mod snapshot;
pub(crate) mod subtitles;
pub(crate) mod tasks;
