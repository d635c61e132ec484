//! The handle to the object store, whichever kind it is.

use std::sync::Arc;

use bytes::Bytes;

use lyceum_core::time::Clock;

use crate::store::config::Config;
use crate::store::directory::Directory;
use crate::store::error::StoreError;
use crate::store::growth::{GrowingObject, Growth};
use crate::store::key::Key;
use crate::store::object::{Body, ByteRange, Meta, Object, body_of};
use crate::store::s3::S3;
use crate::store::{directory_append, s3_multipart};

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    backend: Arc<Backend>,
}

enum Backend {
    Directory(Directory),
    S3(S3),
}

impl Store {
    /// Opens the store. A directory is made, and its abandoned temporary files are removed; a bucket is not contacted.
    pub async fn open(config: &Config, clock: &Clock) -> Result<Self, StoreError> {
        let backend = match config {
            Config::Directory(root) => Backend::Directory(Directory::open(root, clock).await?),
            Config::S3(config) => Backend::S3(S3::open(config)?),
        };
        Ok(Self { backend: Arc::new(backend) })
    }

    /// Stores an object in place of an older one, atomically and durably. Answers its size in bytes.
    pub async fn put(&self, key: &Key, content_type: &str, body: Body) -> Result<u64, StoreError> {
        self.put_of_length(key, content_type, None, body).await
    }

    /// [`Self::put`] of a body whose length in bytes is known: a short one waits for less memory.
    pub async fn put_of_length(
        &self,
        key: &Key,
        content_type: &str,
        length: Option<u64>,
        body: Body,
    ) -> Result<u64, StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.put(key, content_type, body, false).await.map(|(size, _)| size),
            Backend::S3(store) => store.put(key, content_type, length, body, false).await.map(|(size, _)| size),
        }
    }

    /// Stores an object unless one exists; answers whether this one was stored.
    pub async fn put_new(&self, key: &Key, content_type: &str, body: Body) -> Result<bool, StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.put(key, content_type, body, true).await.map(|(_, stored)| stored),
            Backend::S3(store) => store.put(key, content_type, None, body, true).await.map(|(_, stored)| stored),
        }
    }

    /// [`Self::put`] of bytes in memory.
    pub async fn put_bytes(&self, key: &Key, content_type: &str, bytes: Bytes) -> Result<u64, StoreError> {
        self.put_of_length(key, content_type, Some(bytes.len() as u64), body_of(bytes)).await
    }

    /// An object, or a part of it.
    pub async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object, StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.get(key, range).await,
            Backend::S3(store) => store.get(key, range).await,
        }
    }

    /// An object's size, entity tag and type.
    pub async fn head(&self, key: &Key) -> Result<Meta, StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.head(key).await,
            Backend::S3(store) => store.head(key).await,
        }
    }

    /// Removes an object; a missing one is no error.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.delete(key).await,
            Backend::S3(store) => store.delete(key).await,
        }
    }

    /// Removes every object whose key is under `folder`. Can be repeated.
    pub async fn delete_under(&self, folder: &Key) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.delete_under(folder).await,
            Backend::S3(store) => store.delete_under(folder).await,
        }
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.ping().await,
            Backend::S3(store) => store.ping().await,
        }
    }

    /// Whether the store takes a write, which leaves nothing behind.
    pub async fn probe(&self) -> Result<(), StoreError> {
        match &*self.backend {
            Backend::Directory(store) => store.probe().await,
            Backend::S3(store) => store.probe().await,
        }
    }

    /// Starts a growing object. `expected` (bytes) chooses the size of parts on S3.
    pub async fn start_growth(
        &self,
        key: &Key,
        content_type: &str,
        expected: Option<u64>,
    ) -> Result<Growth, StoreError> {
        match &*self.backend {
            Backend::Directory(_) => Ok(Growth::Directory),
            Backend::S3(store) => Ok(Growth::S3(s3_multipart::start(store, key, content_type, expected).await?)),
        }
    }

    /// Continues `owner`'s growing object of `length` durable bytes. `growth` must come from [`Growth::reserve`] and be saved, so
    /// that no older writer can overwrite what this one writes.
    pub async fn grow(&self, key: &Key, owner: &str, length: u64, growth: Growth) -> Result<GrowingObject, StoreError> {
        match (&*self.backend, growth) {
            (Backend::Directory(store), Growth::Directory) => {
                Ok(GrowingObject::Directory(directory_append::GrowingFile::open(store, key, length).await?))
            }
            (Backend::S3(store), Growth::S3(multipart)) => Ok(GrowingObject::S3(Box::new(
                s3_multipart::MultipartWriter::open(store, key, owner, length, multipart).await?,
            ))),
            _ => Err(StoreError::Refused("the upload was begun on another kind of store".to_owned())),
        }
    }

    /// Looks whether the store holds `length` bytes of a growing object, finished or not; [`StoreError::Lost`] when not.
    pub async fn verify_growth(&self, key: &Key, length: u64, growth: &Growth) -> Result<(), StoreError> {
        match (&*self.backend, growth) {
            (Backend::Directory(store), Growth::Directory) => directory_append::verify(store, key, length).await,
            (Backend::S3(store), Growth::S3(multipart)) => s3_multipart::verify(store, key, length, multipart).await,
            _ => Err(StoreError::Refused("the upload was begun on another kind of store".to_owned())),
        }
    }

    /// Turns a growing object of `length` durable bytes into an object. Can be repeated.
    pub async fn finish_growth(
        &self,
        key: &Key,
        content_type: &str,
        length: u64,
        growth: &Growth,
    ) -> Result<(), StoreError> {
        match (&*self.backend, growth) {
            (Backend::Directory(store), Growth::Directory) => {
                directory_append::finish(store, key, content_type, length).await
            }
            (Backend::S3(store), Growth::S3(multipart)) => {
                s3_multipart::finish(store, key, content_type, length, multipart).await
            }
            _ => Err(StoreError::Refused("the upload was begun on another kind of store".to_owned())),
        }
    }

    /// Removes a growing object. Can be repeated.
    pub async fn abandon_growth(&self, key: &Key, growth: &Growth) -> Result<(), StoreError> {
        match (&*self.backend, growth) {
            (Backend::Directory(store), _) => directory_append::abandon(store, key).await,
            (Backend::S3(store), Growth::S3(multipart)) => s3_multipart::abandon(store, key, multipart).await,
            _ => Ok(()),
        }
    }
}
