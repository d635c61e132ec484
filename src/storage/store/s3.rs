//! Objects in an S3 bucket: Amazon's, or a compatible server's, whose differences are settings. Every request has a
//! timeout, and is retried a few times where that may help. Bodies are sent from memory in parts, so that a part can be
//! sent again; the memory for parts is limited by `buffers`.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};

use crate::store::buffers::Buffers;
use crate::store::config::{Checksums, S3Config};
use crate::store::error::StoreError;
use crate::store::key::Key;
use crate::store::object::{Body, ByteRange, Meta, Object};

/// A store in a bucket.
#[derive(Clone)]
pub(super) struct S3 {
    pub(super) client: Client,
    pub(super) bucket: String,
    prefix: String,
    pub(super) part: u64,
    pub(super) copy: bool,
    pub(super) buffers: Buffers,
}

impl S3 {
    pub(super) fn open(config: &S3Config) -> Result<Self, StoreError> {
        if let Some(fault) = config.faults("store.s3").first() {
            return Err(StoreError::Refused(format!("`{}`: {}", fault.key, fault.what)));
        }
        let (calculate, validate) = match config.checksums {
            Checksums::Supported => {
                (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
            }
            Checksums::Required => (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired),
        };
        let sdk = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(config.endpoint.trim_end_matches('/'))
            .region(Region::new(config.region.clone()))
            .credentials_provider(Credentials::new(&config.access_key, &config.secret_key, None, None, "configuration"))
            .force_path_style(config.path_style)
            .request_checksum_calculation(calculate)
            .response_checksum_validation(validate)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(u32::try_from(config.attempts).unwrap_or(u32::MAX))
                    .with_max_backoff(Duration::from_secs(5)),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(config.connect_timeout.get())
                    .read_timeout(config.attempt_timeout.get())
                    .operation_attempt_timeout(config.attempt_timeout.get())
                    .build(),
            )
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().grace_period(Duration::from_secs(20)).build(),
            )
            .build();
        Ok(Self {
            client: Client::from_conf(sdk),
            bucket: config.bucket.clone(),
            prefix: if config.prefix.is_empty() { String::new() } else { format!("{}/", config.prefix) },
            part: config.part.0,
            copy: config.copy,
            buffers: Buffers::new(config),
        })
    }

    pub(super) fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// `length`: the body's, where it is known; a short one needs no whole part's memory.
    pub(super) async fn put(
        &self,
        key: &Key,
        content_type: &str,
        length: Option<u64>,
        mut body: Body,
        only_new: bool,
    ) -> Result<(u64, bool), StoreError> {
        let _held = self.buffers.of_object(length.unwrap_or(self.part).min(self.part)).await?;
        let mut part = BytesMut::new();
        while let Some(chunk) = body.try_next().await? {
            part.extend_from_slice(&chunk);
            if part.len() as u64 >= self.part {
                return self.put_in_parts(key, content_type, part, body, only_new).await;
            }
        }
        self.put_whole(key, content_type, part.freeze(), only_new).await
    }

    /// Stores bytes in one request; the caller holds their share of the buffer budget.
    pub(super) async fn put_whole(
        &self,
        key: &Key,
        content_type: &str,
        bytes: Bytes,
        only_new: bool,
    ) -> Result<(u64, bool), StoreError> {
        let size = bytes.len() as u64;
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.name(key))
            .content_type(content_type)
            .set_if_none_match(only_new.then(|| "*".to_owned()))
            .body(ByteStream::from(bytes));
        match request.send().await {
            Ok(_) => Ok((size, true)),
            Err(error) if only_new && error.code() == Some("PreconditionFailed") => Ok((size, false)),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn put_in_parts(
        &self,
        key: &Key,
        content_type: &str,
        mut part: BytesMut,
        mut body: Body,
        only_new: bool,
    ) -> Result<(u64, bool), StoreError> {
        let upload = self.create_multipart(key, content_type).await?;
        let mut sent = Vec::new();
        let mut size = 0;
        let work = async {
            loop {
                let more = loop {
                    if part.len() as u64 >= self.part {
                        break true;
                    }
                    match body.try_next().await? {
                        Some(chunk) => part.extend_from_slice(&chunk),
                        None => break false,
                    }
                };
                if !part.is_empty() {
                    let number = i32::try_from(sent.len() + 1).unwrap_or(i32::MAX);
                    size += part.len() as u64;
                    let etag = self.upload_part(key, &upload, number, part.split().freeze()).await?;
                    sent.push((number, etag));
                }
                if !more {
                    break;
                }
            }
            self.complete_multipart(key, &upload, &sent, only_new).await
        };
        match work.await {
            Ok(stored) => Ok((size, stored)),
            Err(error) => {
                // What a crash leaves here is removed by the bucket's lifecycle rule for unfinished uploads.
                let _ = self.abort_multipart(key, &upload).await;
                Err(error)
            }
        }
    }

    pub(super) async fn create_multipart(&self, key: &Key, content_type: &str) -> Result<String, StoreError> {
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(self.name(key));
        let answer = request.content_type(content_type).send().await.map_err(|error| failure(&error))?;
        answer.upload_id.ok_or_else(|| StoreError::Refused("the server named no multipart upload".to_owned()))
    }

    /// Has the server copy a range of another object as a part.
    pub(super) async fn copy_part(
        &self,
        key: &Key,
        upload: &str,
        number: i32,
        from: &Key,
        range: &Range<u64>,
    ) -> Result<String, StoreError> {
        let request = self.client.upload_part_copy().bucket(&self.bucket).key(self.name(key)).upload_id(upload);
        let source = format!("{}/{}", self.bucket, self.name(from));
        let stretch = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let request = request.part_number(number).copy_source(source).copy_source_range(stretch);
        let answer = request.send().await.map_err(|error| failure(&error))?;
        let tag = answer.copy_part_result.and_then(|result| result.e_tag);
        tag.ok_or_else(|| StoreError::Refused("the server gave a copied part no ETag".to_owned()))
    }

    pub(super) async fn upload_part(
        &self,
        key: &Key,
        upload: &str,
        number: i32,
        bytes: Bytes,
    ) -> Result<String, StoreError> {
        let request = self.client.upload_part().bucket(&self.bucket).key(self.name(key)).upload_id(upload);
        let request = request.part_number(number).body(ByteStream::from(bytes));
        let answer = request.send().await.map_err(|error| failure(&error))?;
        answer.e_tag.ok_or_else(|| StoreError::Refused("the server gave a part no ETag".to_owned()))
    }

    /// Answers whether the object was stored; false when `only_new` found one there.
    pub(super) async fn complete_multipart(
        &self,
        key: &Key,
        upload: &str,
        parts: &[(i32, String)],
        only_new: bool,
    ) -> Result<bool, StoreError> {
        let parts =
            parts.iter().map(|(number, etag)| CompletedPart::builder().part_number(*number).e_tag(etag).build());
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(self.name(key));
        let request = request.upload_id(upload).multipart_upload(parts);
        match request.set_if_none_match(only_new.then(|| "*".to_owned())).send().await {
            Ok(_) => Ok(true),
            Err(error) if only_new && error.code() == Some("PreconditionFailed") => {
                self.abort_multipart(key, upload).await?;
                Ok(false)
            }
            Err(error) => Err(failure(&error)),
        }
    }

    pub(super) async fn abort_multipart(&self, key: &Key, upload: &str) -> Result<(), StoreError> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(self.name(key));
        match request.upload_id(upload).send().await.map_err(|error| failure(&error)) {
            Ok(_) | Err(StoreError::NotFound | StoreError::Lost(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a multipart upload is there. Where its parts may not be listed, nothing is known, and that is no error.
    pub(super) async fn look_at_multipart(&self, key: &Key, upload: &str) -> Result<(), StoreError> {
        let request = self.client.list_parts().bucket(&self.bucket).key(self.name(key)).upload_id(upload).max_parts(1);
        match request.send().await.map_err(|error| failure(&error)) {
            Err(error @ (StoreError::Lost(_) | StoreError::Unavailable(_))) => Err(error),
            Err(error) => {
                tracing::debug!(object = %key, %error, "the parts of an upload can't be listed");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    pub(super) async fn get(&self, key: &Key, range: Option<ByteRange>) -> Result<Object, StoreError> {
        let field = range.map(|range| match range {
            ByteRange::Between(first, last) => format!("bytes={first}-{last}"),
            ByteRange::From(first) => format!("bytes={first}-"),
            ByteRange::Last(count) => format!("bytes=-{count}"),
        });
        let request = self.client.get_object().bucket(&self.bucket).key(self.name(key)).set_range(field);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some("InvalidRange") => {
                return Err(StoreError::RangeNotSatisfiable { size: self.head(key).await?.size });
            }
            Err(error) => return Err(failure(&error)),
        };
        let length = answer.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let (start, size) = match answer.content_range.as_deref() {
            Some(text) => content_range(text)
                .ok_or_else(|| StoreError::Refused(format!("the server sent a wrong Content-Range: {text}")))?,
            None => (0, length),
        };
        if range.is_some() && size == 0 {
            return Err(StoreError::RangeNotSatisfiable { size });
        }
        let meta = meta(size, answer.e_tag, answer.content_type, key);
        let body = tokio_util::io::ReaderStream::with_capacity(answer.body.into_async_read(), 64 << 10);
        let body = body.map_err(|error| StoreError::Unavailable(format!("the body broke off: {error}"))).boxed();
        Ok(Object { meta, range: start..start + length, body })
    }

    pub(super) async fn head(&self, key: &Key) -> Result<Meta, StoreError> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.name(key));
        let answer = request.send().await.map_err(|error| failure(&error))?;
        let size = answer.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Ok(meta(size, answer.e_tag, answer.content_type, key))
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.name(key));
        match request.send().await.map_err(|error| failure(&error)) {
            Ok(_) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn delete_under(&self, folder: &Key) -> Result<(), StoreError> {
        self.delete_named(&format!("{}/", self.name(folder))).await
    }

    /// Removes every object whose whole name begins with `prefix`.
    pub(super) async fn delete_named(&self, prefix: &str) -> Result<(), StoreError> {
        loop {
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).max_keys(1000);
            let page = request.send().await.map_err(|error| failure(&error))?;
            let names = page.contents().iter().filter_map(|object| object.key().map(str::to_owned));
            let objects: Result<Vec<_>, _> = names.map(|name| ObjectIdentifier::builder().key(name).build()).collect();
            let objects = objects.map_err(|error| StoreError::Refused(error.to_string()))?;
            if objects.is_empty() {
                return Ok(());
            }
            let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build();
            let delete = delete.map_err(|error| StoreError::Refused(error.to_string()))?;
            let request = self.client.delete_objects().bucket(&self.bucket).delete(delete);
            let answer = request.send().await.map_err(|error| failure(&error))?;
            if let Some(error) = answer.errors().first() {
                let what = error.message().unwrap_or("no reason given");
                return Err(StoreError::Unavailable(format!("an object could not be deleted: {what}")));
            }
        }
    }

    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let key = Key::parse("probe/written").map_err(|error| StoreError::Refused(error.to_string()))?;
        self.put_whole(&key, "text/plain", Bytes::from_static(b"probe"), false).await?;
        if let Err(error) = self.delete(&key).await {
            // The next probe replaces it.
            tracing::debug!(%error, "the probe's object could not be deleted");
        }
        Ok(())
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).max_keys(1).prefix(&self.prefix);
        request.send().await.map(drop).map_err(|error| match failure(&error) {
            StoreError::NotFound => StoreError::Refused(format!("there is no bucket {}", self.bucket)),
            other => other,
        })
    }
}

fn meta(size: u64, etag: Option<String>, content_type: Option<String>, key: &Key) -> Meta {
    let etag = etag.unwrap_or_default();
    // Some compatible servers leave the quotes out.
    let etag = if etag.starts_with('"') { etag } else { format!("\"{etag}\"") };
    Meta { size, etag, content_type: content_type.unwrap_or_else(|| key.guessed_type().to_owned()) }
}

/// First byte and whole size of `bytes 0-99/1234`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()?))
}

/// An SDK error as a store error.
pub(super) fn failure<E>(error: &SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let code = error.code().unwrap_or_default();
    let words = aws_sdk_s3::error::DisplayErrorContext(error).to_string();
    let short = words.chars().take(400).collect::<String>();
    match (status, code) {
        (_, "NoSuchKey" | "NotFound") => StoreError::NotFound,
        // Of the last two: parts that were acknowledged are no longer what they were.
        (_, "NoSuchUpload" | "InvalidPart" | "InvalidPartOrder") => StoreError::Lost(short),
        (_, "NoSuchBucket") => StoreError::Refused("there is no such bucket".to_owned()),
        (_, "EntityTooLarge" | "QuotaExceeded" | "XMinioStorageFull") | (Some(507), _) => StoreError::Full(short),
        (_, "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable") => StoreError::Unavailable(short),
        (Some(404), _) => StoreError::NotFound,
        (Some(status), _) if status >= 500 || status == 429 || status == 408 => StoreError::Unavailable(short),
        (Some(_), _) => StoreError::Refused(short),
        (None, _) => StoreError::Unavailable(short),
    }
}
