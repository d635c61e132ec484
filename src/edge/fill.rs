//! Fills: what is asked of an origin, and what of its answer is stored. Whether that answer can be believed is a matter
//! of `sound.rs`.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::fetch::{Fetcher, Wanted};
use super::sound::{
    Ask, clean, content_range, ends_with_connection, has_validator, is_another_part, is_coded, is_failure, sound,
    speaks_of_another, strong_etag, tags, takes_ranges, unsound, vary,
};
use lyceum_cache::{Came, FillPlan, ResponseHead, SliceLayout, Stored, Vary, Writer};
use lyceum_http::fields;
use lyceum_http::freshness::{Exchange, Freshness, NotStored, Standing};
use lyceum_http::range::{self, Span};
use lyceum_upstream::{FetchError, ResponseBody, UpstreamRequest, UpstreamResponse, stable_hash};

/// How often a body that broke off is asked for from where it ended.
const RESUMES: usize = 3;

/// How often an origin is asked in another way when its answer does not serve.
const WAYS: usize = 3;

/// Where a body lies in its representation, so that the rest can be asked for when it breaks off.
#[derive(Clone, Debug)]
pub(super) struct Place {
    etag: HeaderValue,
    span: Span,
    total: u64,
}

/// Why a body was not brought to its end.
enum Ended {
    Failed(FetchError),
    NoReaders,
}

impl Fetcher {
    /// Brings one response to its end: from disk, or from an origin.
    pub(super) async fn fill(&self, writer: Writer<FetchError>, wanted: Wanted, stale: Option<Arc<Stored>>) {
        let (writer, stale) = match stale {
            Some(stale) => (writer, Some(stale)),
            None => match writer.load_from_disk().await {
                (None, _) => return,
                (Some(writer), Some(found))
                    if found.freshness.standing(self.clock.unix_millis()) == Standing::Fresh =>
                {
                    return writer.answer_from_disk(found);
                }
                (Some(writer), found) => (writer, found),
            },
        };
        let (outcome, ask, validated, requested_ms) = self.asked(&writer, &wanted, stale.as_ref()).await;
        let failed = match &outcome {
            Ok(answer) => is_failure(answer.head.status),
            Err(_) => true,
        };
        let usable = stale.filter(|stored| !failed || stored.freshness.usable_on_error(self.clock.unix_millis()));
        match (outcome, usable) {
            (Ok(answer), Some(stored)) if validated && answer.head.status == StatusCode::NOT_MODIFIED => {
                self.renew(writer, &wanted, &stored, &answer, requested_ms);
            }
            (Ok(answer), Some(stored)) if failed => {
                tracing::debug!(origin = %answer.origin, status = %answer.head.status, "stale in place of an error");
                self.metrics.filled("stale_on_error");
                writer.answer(stored, Came::OnError, false);
            }
            (Err(error), Some(stored)) => {
                tracing::debug!(%error, "stale in place of an error");
                self.metrics.filled("stale_on_error");
                writer.answer(stored, Came::OnError, false);
            }
            (Err(_), None) if matches!(ask, Ask::AsItCame) && !writer.is_private() => {
                self.metrics.not_stored("another_part");
                writer.fail_unshared();
            }
            (Err(error), None) => {
                tracing::warn!(%error, path = %wanted.key, "fetch failed");
                self.metrics.filled(error.failure.name());
                writer.fail(error);
            }
            (Ok(answer), _) => self.bring(writer, &wanted, answer, ask, requested_ms).await,
        }
    }

    /// Asks until the answer is one that serves, in at most three ways: with what is stored as the condition, for a
    /// slice where it may be large, and plainly. Where the origin's parts are no slices, each client is to ask as it
    /// came.
    async fn asked(
        &self,
        writer: &Writer<FetchError>,
        wanted: &Wanted,
        stale: Option<&Arc<Stored>>,
    ) -> (Result<UpstreamResponse, FetchError>, Ask, bool, i64) {
        let mut validating = stale.filter(|stored| has_validator(&stored.headers));
        let mut ask = self.ask(writer, wanted, stale.map(AsRef::as_ref));
        let mut way = 0;
        loop {
            way += 1;
            let requested_ms = self.clock.unix_millis();
            let outgoing = outgoing(wanted, validating.map(AsRef::as_ref), ask);
            let outcome = wanted.route.pool.fetch(outgoing).await;
            let answer = match outcome {
                Ok(answer) => answer,
                Err(error) => return (Err(error), ask, false, requested_ms),
            };
            if way < WAYS {
                let of_another = validating.is_some_and(|stored| speaks_of_another(&answer, stored));
                if of_another {
                    validating = None;
                    continue;
                }
                if let (StatusCode::RANGE_NOT_SATISFIABLE, Ask::Window(span)) = (answer.head.status, ask) {
                    ask = self.ask_after_416(&answer, span);
                    continue;
                }
            }
            if is_another_part(&answer, ask) {
                let error = unsound(&answer, "another part than was asked for");
                return (Err(error), Ask::AsItCame, false, requested_ms);
            }
            let validated = validating.is_some();
            let range = wanted.range.as_ref().and_then(|field| field.to_str().ok());
            return (sound(answer, ask, range, validated), ask, validated, requested_ms);
        }
    }

    fn ask(&self, writer: &Writer<FetchError>, wanted: &Wanted, stale: Option<&Stored>) -> Ask {
        if writer.is_private() {
            return if wanted.range.is_some() { Ask::AsItCame } else { Ask::Whole };
        }
        let known = stale.map(Stored::sliced);
        let range = wanted.range.as_ref().and_then(|field| field.to_str().ok()).and_then(range::first_byte);
        match (known, range) {
            // What is known to be small is asked for whole, and so is what no one wants a part of.
            (Some(None), _) | (None, None) => Ask::Whole,
            (Some(Some(sliced)), first) => Ask::Window(window(first.unwrap_or(0), sliced.size)),
            (None, Some(_)) if wanted.if_range.is_some() => Ask::Window(window(0, self.cache.slice_size())),
            (None, Some(first)) => Ask::Window(window(first, self.cache.slice_size())),
        }
    }

    /// The client's first byte lies beyond the end: now the length is known.
    fn ask_after_416(&self, answer: &UpstreamResponse, span: Span) -> Ask {
        let total = fields::single(&answer.head.headers, &header::CONTENT_RANGE)
            .and_then(|text| text.strip_prefix("bytes */")?.parse::<u64>().ok());
        match total {
            Some(total) if total > self.cache.largest_object() && span.first > 0 => {
                Ask::Window(window(0, self.cache.slice_size()))
            }
            _ => Ask::Whole,
        }
    }

    /// 304: the stored response takes over the new fields (RFC 9111, sections 3.2 and 4.3.4).
    fn renew(
        &self,
        writer: Writer<FetchError>,
        wanted: &Wanted,
        stored: &Stored,
        answer: &UpstreamResponse,
        requested_ms: i64,
    ) {
        let mut headers = stored.headers.clone();
        let mut new = answer.head.headers.clone();
        fields::strip_hop_by_hop(&mut new);
        // What is stored is the body as it came: these would say something else of it.
        for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE] {
            new.remove(name);
        }
        for name in new.keys() {
            headers.remove(name);
            for value in new.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        if !new.contains_key(header::DATE) {
            headers.remove(header::DATE);
            self.date(&mut headers);
        }
        self.metrics.filled("ok");
        match self.judge(wanted, stored.status, &headers, requested_ms) {
            Ok(freshness) => {
                let tags = tags(&headers);
                clean(&mut headers, wanted);
                let mut renewed = stored.with(headers, freshness);
                if !tags.is_empty() {
                    renewed.tags = tags;
                }
                writer.answer(Arc::new(renewed), Came::Renewed, true);
            }
            Err(reason) => {
                // It may be used for those who asked, and is not kept.
                self.metrics.not_stored(reason.name());
                clean(&mut headers, wanted);
                let now = self.clock.unix_millis();
                let young =
                    Freshness { life: 1, initial_age: 0, received_ms: now, ended: false, ..stored.freshness.clone() };
                writer.answer(Arc::new(stored.with(headers, young)), Came::Renewed, false);
            }
        }
    }

    async fn bring(
        &self,
        mut writer: Writer<FetchError>,
        wanted: &Wanted,
        answer: UpstreamResponse,
        ask: Ask,
        requested_ms: i64,
    ) {
        let UpstreamResponse { head, body, .. } = answer;
        let (mut status, mut headers) = (head.status, head.headers);
        let part = match ask {
            Ask::Window(_) if status == StatusCode::PARTIAL_CONTENT => content_range(&headers),
            _ => None,
        };
        if part.is_some() {
            status = StatusCode::OK;
        }
        let judged = match ends_with_connection(head.version, status, &headers) {
            false => self.judge(wanted, status, &headers, requested_ms),
            true => Err(NotStored::Length),
        };
        let tags = tags(&headers);
        let length = fields::single(&headers, &header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let etag = strong_etag(&headers);
        let vary = vary(&headers, wanted);
        let sliceable = etag.is_some() && !writer.is_private() && (part.is_some() || takes_ranges(&headers));
        clean(&mut headers, wanted);
        self.date(&mut headers);

        let total = part.map(|(_, total)| total).or(length.filter(|_| status == StatusCode::OK));
        let large = part.is_some() || total.is_some_and(|total| total > self.cache.largest_object());
        if let (true, true, Some(total), Ok(freshness)) = (large, sliceable, total, &judged) {
            let first = part.map_or(0, |(span, _)| span.first);
            let head = ResponseHead { status, headers, length: Some(total), vary };
            return self.bring_sliced(writer, wanted, head, freshness.clone(), tags, first, body).await;
        }
        if part.is_some() {
            // A part of what can't be stored serves no one but by chance: each asks for its own.
            self.metrics.not_stored(judged.as_ref().err().map_or("no_strong_etag", |reason| reason.name()));
            return writer.fail_unshared();
        }
        let plan = match &judged {
            Ok(freshness) => FillPlan::Store { freshness: freshness.clone(), tags },
            Err(reason) => FillPlan::Pass { why: reason.name() },
        };
        let place = match (etag, length.and_then(|length| length.checked_sub(1))) {
            (Some(etag), Some(last)) if status == StatusCode::OK => {
                Some(Place { etag, span: Span { first: 0, last }, total: last.saturating_add(1) })
            }
            _ => None,
        };
        writer.begin(ResponseHead { status, headers, length, vary }, plan);
        match self.pump(&mut writer, wanted, body, place, 0).await {
            Ok(came) => {
                let stored = writer.finish();
                if let Some(stored) = &stored {
                    wanted.route.prepare(stored);
                }
                let short = length.is_some_and(|length| length != came);
                self.metrics.filled(if short { "short" } else { "ok" });
                match (stored, judged) {
                    _ if short => {}
                    (Some(_), _) => {}
                    (None, Err(reason)) => self.metrics.not_stored(reason.name()),
                    (None, Ok(_)) => self.metrics.not_stored("too_large"),
                }
            }
            Err(Ended::NoReaders) => self.metrics.filled("ok"),
            Err(Ended::Failed(error)) => self.broke_off(writer, wanted, error),
        }
    }

    fn broke_off(&self, writer: Writer<FetchError>, wanted: &Wanted, error: FetchError) {
        tracing::warn!(%error, path = %wanted.key, "the origin's answer broke off");
        self.metrics.filled("broken_off");
        writer.fail(error);
    }

    /// A large response shows itself: what leads to its slices is stored, and the slice that came with it.
    #[allow(clippy::too_many_arguments, reason = "the parts of one answer")]
    async fn bring_sliced(
        &self,
        writer: Writer<FetchError>,
        wanted: &Wanted,
        mut head: ResponseHead,
        freshness: Freshness,
        tags: Vec<Box<str>>,
        first: u64,
        body: ResponseBody,
    ) {
        for name in [header::CONTENT_RANGE, header::CONTENT_LENGTH] {
            head.headers.remove(name);
        }
        let sliced = SliceLayout::new(head.length.unwrap_or(0), self.cache.slice_size());
        let slice = sliced.holding(first);
        // Claimed before anyone can ask for it.
        let claimed = self.cache.claim(&sliced.key(&wanted.key, slice), &HeaderMap::new());
        let stored = writer.slice(head, freshness, tags, sliced);
        if let Some(writer) = claimed {
            self.bring_slice(writer, wanted, &stored, slice, body, 0).await;
        }
    }

    /// Asks for one slice of a stored response and brings it (RFC 9110, sections 13.1.1 and 14).
    pub(super) async fn fill_slice(&self, writer: Writer<FetchError>, wanted: &Wanted, stored: &Stored, slice: u64) {
        let place = stored.sliced().and_then(|sliced| sliced.span(slice).map(|span| (sliced, span)));
        let (Some((sliced, span)), Some(etag)) = (place, strong_etag(&stored.headers)) else {
            return writer.fail_outdated();
        };
        let writer = match writer.load_from_disk().await {
            (None, _) => return,
            (Some(writer), Some(found)) => return writer.answer_from_disk(found),
            (Some(writer), None) => writer,
        };
        let place = Place { etag, span, total: sliced.length };
        let Some(outgoing) = place.outgoing(wanted, 0) else { return writer.fail_outdated() };
        match wanted.route.pool.fetch(outgoing).await {
            Err(error) => {
                tracing::warn!(%error, path = %wanted.key, slice, "fetch failed");
                self.metrics.filled(error.failure.name());
                writer.fail(error);
            }
            Ok(answer) if place.fits(&answer, 0) => {
                self.bring_slice(writer, wanted, stored, slice, answer.body, 0).await
            }
            // It takes no ranges after all, but it is the same: what comes before is passed over.
            Ok(answer) if place.is_whole_of_same(&answer) => {
                self.bring_slice(writer, wanted, stored, slice, answer.body, span.first).await;
            }
            Ok(answer) if is_failure(answer.head.status) => {
                let error = unsound(&answer, "an error in place of a slice");
                tracing::warn!(%error, status = %answer.head.status, path = %wanted.key, slice, "fetch failed");
                self.metrics.filled(error.failure.name());
                writer.fail(error);
            }
            Ok(answer) => {
                tracing::debug!(status = %answer.head.status, path = %wanted.key, slice, "changed since its other slices");
                self.metrics.filled("changed");
                self.cache.remove_outdated(&wanted.key, &wanted.headers, sliced);
                writer.fail_outdated();
            }
        }
    }

    async fn bring_slice(
        &self,
        mut writer: Writer<FetchError>,
        wanted: &Wanted,
        stored: &Stored,
        slice: u64,
        body: ResponseBody,
        skip: u64,
    ) {
        let place = stored.sliced().and_then(|sliced| Some((sliced.span(slice)?, sliced.length)));
        let (Some((span, total)), Some(etag)) = (place, strong_etag(&stored.headers)) else {
            return writer.fail_outdated();
        };
        let head = ResponseHead {
            status: StatusCode::PARTIAL_CONTENT,
            headers: HeaderMap::new(),
            length: Some(span.length()),
            vary: Vary::default(),
        };
        writer.begin(head, FillPlan::Store { freshness: stored.freshness.clone(), tags: stored.tags.clone() });
        match self.pump(&mut writer, wanted, body, Some(Place { etag, span, total }), skip).await {
            Ok(_) => {
                let whole = writer.finish().is_some();
                self.metrics.filled(if whole { "ok" } else { "short" });
            }
            Err(Ended::NoReaders) => self.metrics.filled("ok"),
            Err(Ended::Failed(error)) => self.broke_off(writer, wanted, error),
        }
    }

    /// Copies a body, its first `skip` bytes left out, as far as its place reaches; one that breaks off goes on from
    /// another origin.
    async fn pump(
        &self,
        writer: &mut Writer<FetchError>,
        wanted: &Wanted,
        mut body: ResponseBody,
        place: Option<Place>,
        mut skip: u64,
    ) -> Result<u64, Ended> {
        let most = place.as_ref().map_or(u64::MAX, |place| place.span.length());
        let (mut came, mut resumes) = (0_u64, 0_usize);
        // What goes to one client alone may take its time: it holds no one else up.
        let least = if writer.is_private() { 0 } else { wanted.route.pool.min_progress_bytes() };
        loop {
            body.require_progress(least);
            match body.next().await {
                Ok(None) => return Ok(came),
                Ok(Some(mut piece)) => {
                    let skipped = skip.min(piece.len() as u64);
                    skip -= skipped;
                    let _ = piece.split_to(usize::try_from(skipped).unwrap_or(piece.len()));
                    piece.truncate(usize::try_from(most - came).unwrap_or(usize::MAX));
                    came += piece.len() as u64;
                    writer.push(piece).await.map_err(|_| Ended::NoReaders)?;
                    if came == most {
                        return Ok(came);
                    }
                }
                Err(error) => {
                    resumes += 1;
                    let rest = match &place {
                        Some(place) if resumes <= RESUMES => {
                            tracing::debug!(%error, came, "going on from where the body broke off");
                            place.rest(wanted, came).await
                        }
                        _ => None,
                    };
                    body = rest.ok_or(Ended::Failed(error))?.body;
                    skip = 0;
                }
            }
        }
    }

    /// Every message that is kept says when it was made (RFC 9110, section 6.6.1).
    pub(super) fn date(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::try_from(fields::format_date(self.clock.system_time()))
        {
            headers.insert(header::DATE, date);
        }
    }

    fn judge(
        &self,
        wanted: &Wanted,
        status: StatusCode,
        headers: &HeaderMap,
        requested_ms: i64,
    ) -> Result<Freshness, NotStored> {
        if is_coded(headers) {
            return Err(NotStored::Coding);
        }
        Freshness::judge(&Exchange {
            method: &Method::GET,
            authorized: wanted.authorized,
            status,
            headers,
            requested_ms,
            received_ms: self.clock.unix_millis(),
            default_life: wanted.route.default_life(status),
        })
    }
}

impl Place {
    /// Asks for the rest after `came` bytes: only of the same representation.
    fn outgoing(&self, wanted: &Wanted, came: u64) -> Option<UpstreamRequest> {
        let mut outgoing = outgoing(wanted, None, Ask::Whole);
        let range = format!("bytes={}-{}", self.span.first.checked_add(came)?, self.span.last);
        outgoing.headers.insert(header::RANGE, HeaderValue::try_from(range).ok()?);
        outgoing.headers.insert(header::IF_MATCH, self.etag.clone());
        Some(outgoing)
    }

    fn fits(&self, answer: &UpstreamResponse, came: u64) -> bool {
        let rest = Span { first: self.span.first.saturating_add(came), last: self.span.last };
        answer.head.status == StatusCode::PARTIAL_CONTENT
            && content_range(&answer.head.headers) == Some((rest, self.total))
            && self.is_same(&answer.head.headers)
    }

    fn is_whole_of_same(&self, answer: &UpstreamResponse) -> bool {
        let length = fields::single(&answer.head.headers, &header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        answer.head.status == StatusCode::OK && length == Some(self.total) && self.is_same(&answer.head.headers)
    }

    fn is_same(&self, headers: &HeaderMap) -> bool {
        strong_etag(headers).as_ref() == Some(&self.etag) && !is_coded(headers)
    }

    async fn rest(&self, wanted: &Wanted, came: u64) -> Option<UpstreamResponse> {
        if came >= self.span.length() {
            return None;
        }
        let answer = wanted.route.pool.fetch(self.outgoing(wanted, came)?).await.ok()?;
        self.fits(&answer, came).then_some(answer)
    }
}

/// The slice-sized span that holds a byte.
fn window(byte: u64, size: u64) -> Span {
    let first = byte - byte % size.max(1);
    Span { first, last: first.saturating_add(size.max(1) - 1) }
}

fn outgoing(wanted: &Wanted, stale: Option<&Stored>, ask: Ask) -> UpstreamRequest {
    let mut headers = wanted.headers.clone();
    // Absence would mean that any coding will do (RFC 9110, section 12.5.3).
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(stored) = stale {
        let validators = [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
        for (validator, condition) in validators {
            if let Some(value) = stored.headers.get(&validator) {
                headers.insert(condition, value.clone());
            }
        }
    }
    match ask {
        Ask::Whole => {}
        Ask::Window(span) => {
            if let Ok(range) = HeaderValue::try_from(format!("bytes={}-{}", span.first, span.last)) {
                headers.insert(header::RANGE, range);
            }
        }
        Ask::AsItCame => {
            let fields = [(header::RANGE, &wanted.range), (header::IF_RANGE, &wanted.if_range)];
            for (name, value) in fields {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            }
        }
    }
    UpstreamRequest {
        method: Method::GET,
        target: wanted.target.clone(),
        headers,
        body: None,
        affinity: stable_hash(wanted.key.as_bytes()),
    }
}
