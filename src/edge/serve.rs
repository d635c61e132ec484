//! One request, from top to bottom: admit → authorize → lookup → fetch → deliver → record.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Scheme;
use http::{Method, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};

use super::Inner;
use super::body::Body;
use super::config::Auth;
use super::decision::CacheOutcome;
use super::deliver::{Terms, Undelivered, deliver};
use super::error::Refusal;
use super::fetch::{NotFound, Wanted};
use super::locate::{self, Located, TokenPlacement, What};
use super::route::Route;
use lyceum_cache::ReadError;
use lyceum_core::time::{Instant, monotonic};
use lyceum_http::byte_set::ByteSet;
use lyceum_http::cache_control::Directives;
use lyceum_http::{cmcd, fields};
use lyceum_packaging::filter::{self, Playlist};
use lyceum_server::{Peer, Refused, RequestBody};
use lyceum_token::Grant;

/// How often a large response is looked for again that changed at the origin between two of its slices.
const TRIES: usize = 3;

/// How long the body of a report may take: it is a few kilobytes.
const REPORT_TIME: Duration = Duration::from_secs(10);

/// What is known of a request when its answer begins.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) route: Option<usize>,
    pub(super) grant: Option<Grant>,
    /// The revocations as they were before the grant was made.
    pub(super) seen: u64,
    /// The cookie with the token that follows the one shown.
    pub(super) cookie: Option<HeaderValue>,
    /// Whether the answer has its connection for itself while it goes out: without streams.
    pub(super) alone: bool,
}

/// Whether a request of this version comes over a connection without streams.
pub(super) fn is_alone(version: Version) -> bool {
    version <= Version::HTTP_11
}

impl Inner {
    /// Answers one request that came at `began`.
    pub(super) async fn serve(
        self: &Arc<Self>,
        peer: Peer,
        head: http::request::Parts,
        body: RequestBody,
        began: Instant,
    ) -> Response<Body> {
        let mut record = Record { alone: is_alone(head.version), ..Record::default() };
        let (response, outcome) = match self.answer(peer, &head, body, &mut record).await {
            Ok((mut response, outcome)) => {
                if let Some(cookie) = record.cookie.take() {
                    response.headers_mut().append(header::SET_COOKIE, cookie);
                }
                (response, outcome)
            }
            Err(refusal) => (self.refusal(&head, &refusal), CacheOutcome::None),
        };
        self.recorded(record, response, outcome, Some(began.elapsed()))
    }

    /// Counts an answer, and has its body watched. `took`: see [`Metrics::answered`](super::metrics::Metrics::answered).
    pub(super) fn recorded(
        &self,
        record: Record,
        response: Response<Body>,
        outcome: CacheOutcome,
        took: Option<Duration>,
    ) -> Response<Body> {
        self.metrics.answered(record.route, outcome, response.status(), took);
        let watch = self.posts.watch(record.route, record.grant, record.seen);
        let mut response = response.map(|body| body.watched(watch, record.alone));
        if let Some(pass) = response.body().pass() {
            response.extensions_mut().insert(pass);
        }
        response
    }

    /// Answers one request that a limit refused.
    pub(super) fn refuse(&self, head: &http::request::Parts, refused: Refused) -> Response<Body> {
        let response = self.refusal(head, &Refusal::Limit(refused));
        self.metrics.answered(None, CacheOutcome::None, response.status(), None);
        let watch = self.posts.watch(None, None, 0);
        response.map(|body| body.watched(watch, false))
    }

    fn refusal(&self, head: &http::request::Parts, refusal: &Refusal) -> Response<Body> {
        self.metrics.refused(refusal);
        tracing::debug!(code = refusal.code(), "refused");
        let mut response = refusal.response();
        self.cors.mark(&head.headers, response.headers_mut());
        if head.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn answer(
        self: &Arc<Self>,
        peer: Peer,
        head: &http::request::Parts,
        body: RequestBody,
        record: &mut Record,
    ) -> Result<(Response<Body>, CacheOutcome), Refusal> {
        // Admit.
        check_host(head)?;
        check_framing(&head.headers)?;
        match head.method {
            Method::CONNECT => return Err(Refusal::Method(super::pass::METHODS)),
            // Of the server as a whole (RFC 9110, section 9.3.7).
            Method::OPTIONS if head.uri.path() == "*" => return Ok((super::pass::options(), CacheOutcome::None)),
            _ => {}
        }
        let located = Located::find(&head.uri, &head.headers, &self.routes)?;
        let route = match located.what {
            What::Resource(route) => route,
            What::Reports => return Box::pin(self.reports(peer, head, body, &located)).await,
        };
        record.route = Some(route.index);
        if head.method == Method::OPTIONS && route.auth != Auth::None {
            return Ok((self.cors.options(&head.headers), CacheOutcome::None));
        }
        if route.auth != Auth::None && !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(Refusal::Method("GET, HEAD, OPTIONS"));
        }

        // Authorize.
        record.seen = self.guard.verifier.as_ref().map_or(0, |verifier| verifier.revocations().generation());
        let (grant, cookie) = self.authorize(peer, route, &located, head).await?;
        record.cookie = cookie;
        if let (Some((TokenPlacement::Query, token)), Some(_)) = (located.token, Playlist::of(located.path.as_str())) {
            let mut response = redirect(token, &located);
            self.cors.mark(&head.headers, response.headers_mut());
            return Ok((response, CacheOutcome::None));
        }
        let limits = filter::Limits {
            max_height: grant.as_ref().and_then(Grant::max_height),
            preview_ms: grant.as_ref().and_then(Grant::preview_ms),
        };
        record.grant = grant;
        self.listen_to_player(&located, &head.headers, monotonic());

        if route.auth == Auth::None && !matches!(head.method, Method::GET | Method::HEAD) {
            return Box::pin(self.pass(route, &located, head, body)).await;
        }

        // Lookup and fetch.
        let key = key_of(route, &located, head);
        let wanted = || wanted(route, &located, head, key.to_string());
        // A player's reload does not reach the origin; on open routes the client's directives count.
        let demands = (route.auth == Auth::None).then(|| demands(&head.headers));
        for _ in 0..TRIES {
            let found = self.fetcher.find(wanted, &key, &head.headers, demands.as_ref()).await.map_err(of_search)?;

            if route.auth == Auth::Token && found.leads_on() {
                self.ahead.after(&self.fetcher, route, located.path.as_str(), locate::host(head), found.length());
            }

            // Deliver; `serve` records.
            let terms = self.terms(head, route, &located, limits, self.clock.unix_millis(), &wanted);
            match deliver(&terms, found).await {
                Ok(answered) => return Ok(answered),
                Err(Undelivered::Refused(refusal)) => return Err(refusal),
                Err(Undelivered::Outdated) => {}
            }
        }
        Err(Refusal::BrokenOff)
    }

    /// The terms of an answer at `now_ms`; `wanted` says what a slice of it is fetched by.
    pub(super) fn terms<'a>(
        &'a self,
        head: &'a http::request::Parts,
        route: &'a Route,
        located: &Located<'a>,
        limits: filter::Limits,
        now_ms: i64,
        wanted: &'a (dyn Fn() -> Wanted + Sync),
    ) -> Terms<'a> {
        Terms {
            method: &head.method,
            request: &head.headers,
            route,
            path: located.path.as_str(),
            limits,
            now_ms,
            fetcher: &self.fetcher,
            wanted,
        }
    }

    async fn authorize(
        self: &Arc<Self>,
        peer: Peer,
        route: &Route,
        located: &Located<'_>,
        head: &http::request::Parts,
    ) -> Result<(Option<Grant>, Option<HeaderValue>), Refusal> {
        match route.auth {
            Auth::None => Ok((None, None)),
            Auth::Bearer => {
                let shown = locate::bearer(&head.headers).unwrap_or("");
                let wanted = route.bearer.as_deref().unwrap_or("");
                let same = aws_lc_rs::constant_time::verify_slices_are_equal(shown.as_bytes(), wanted.as_bytes());
                if same.is_ok() && !wanted.is_empty() { Ok((None, None)) } else { Err(Refusal::Bearer) }
            }
            Auth::Token => {
                let authorized = self.admit_token(peer, located, head).await?;
                Ok((Some(authorized.grant), authorized.cookie))
            }
        }
    }

    pub(super) fn listen_to_player(&self, located: &Located<'_>, headers: &HeaderMap, at: Instant) {
        if let Some(report) = cmcd::Report::of_request(located.query, headers) {
            self.playback.heard(&report, at);
        }
    }

    /// `POST …/cmcd`: event reports of players.
    async fn reports(
        &self,
        peer: Peer,
        head: &http::request::Parts,
        body: RequestBody,
        located: &Located<'_>,
    ) -> Result<(Response<Body>, CacheOutcome), Refusal> {
        if head.method == Method::OPTIONS {
            return Ok((self.cors.options(&head.headers), CacheOutcome::None));
        }
        if head.method != Method::POST {
            return Err(Refusal::Method("POST, OPTIONS"));
        }
        self.admit_report(peer, located).await?;
        let whole = Limited::new(body, self.playback.largest_report()).collect();
        let body = tokio::time::timeout(REPORT_TIME, whole).await.ok().and_then(Result::ok).ok_or(Refusal::Reports)?;
        let bytes = body.to_bytes();
        let text = std::str::from_utf8(&bytes).map_err(|_| Refusal::Reports)?;
        let now = monotonic();
        cmcd::Report::events(text).for_each(|report| self.playback.heard(&report, now));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.cors.mark(&head.headers, response.headers_mut());
        Ok((response, CacheOutcome::None))
    }
}

fn of_search(error: NotFound) -> Refusal {
    match error {
        NotFound::OnlyIfCached => Refusal::OnlyIfCached,
        NotFound::Failed(ReadError::Failed(cause)) => Refusal::Upstream(cause),
        NotFound::Failed(_) => Refusal::BrokenOff,
    }
}

/// RFC 9112, section 3.2: one valid host, and the same one where it stands twice; no scheme but HTTP's. Gives the host.
pub(super) fn check_host(head: &http::request::Parts) -> Result<&str, Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let in_field = match first {
        Some(value) if is_authority(value.as_bytes()) => Some(value.as_bytes()),
        Some(_) => return Err(Refusal::Host),
        None => None,
    };
    let in_uri = head.uri.authority();
    let told = match (in_field, in_uri) {
        (Some(field), Some(uri)) => field.eq_ignore_ascii_case(uri.as_str().as_bytes()),
        (None, None) => head.version == Version::HTTP_10,
        (Some(_), None) => true,
        (None, Some(_)) => head.version != Version::HTTP_11,
    };
    let of_http = head.uri.scheme().is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    let of_field = || first.and_then(|value| value.to_str().ok());
    let host = in_uri.map(http::uri::Authority::as_str).or_else(of_field).unwrap_or("");
    if second.is_none() && told && of_http { Ok(host) } else { Err(Refusal::Host) }
}

/// hyper takes any list of transfer codings that ends in `chunked`; one that says it twice is read in two ways (RFC
/// 9112, section 6.1).
pub(super) fn check_framing(request: &HeaderMap) -> Result<(), Refusal> {
    if !request.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut codings = request.get_all(header::TRANSFER_ENCODING).iter();
    let plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(one), None) => one.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    if plain { Ok(()) } else { Err(Refusal::Framing) }
}

/// What may stand in a host.
static IN_HOST: ByteSet = ByteSet::alphanumeric_and(b"-._~%!$&'()*+,;=[]:");

/// `host [":" port]` (RFC 3986, section 3.2), by its characters and the place of its colon; without a user.
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', ..] => match text.iter().position(|b| *b == b']').and_then(|end| text.split_at_checked(end + 1)) {
            Some((host, rest)) => (host, rest.strip_prefix(b":").or_else(|| rest.is_empty().then_some(b"".as_slice()))),
            None => return false,
        },
        _ => match text.iter().position(|b| *b == b':').and_then(|colon| text.split_at_checked(colon)) {
            Some((host, rest)) => (host, rest.get(1..)),
            None => (text, Some(b"".as_slice())),
        },
    };
    !host.is_empty()
        && host.iter().all(|byte| IN_HOST.contains(*byte))
        && port.is_some_and(|port| port.iter().all(u8::is_ascii_digit))
}

/// The directives of a request; `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111, section 5.4).
fn demands(request: &HeaderMap) -> Directives {
    let mut directives = Directives::of(request);
    let mut pragma = fields::values(request, &header::PRAGMA).flat_map(fields::list);
    if !request.contains_key(header::CACHE_CONTROL) && pragma.any(|member| member.eq_ignore_ascii_case("no-cache")) {
        directives.no_cache = true;
    }
    directives
}

/// 307 to the form with the token in the path, from which relative URIs inherit it.
fn redirect(token: &str, located: &Located<'_>) -> Response<Body> {
    let query = located.query_without_token().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    // The token was verified, so it holds no character that a field may not.
    if let Ok(location) = HeaderValue::try_from(format!("/t/{token}{}{query}", located.path)) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}

/// The key: the path, with the query and the host where the route says so. Most are the path alone.
pub(super) fn key_of<'a>(route: &Route, located: &Located<'a>, head: &http::request::Parts) -> Cow<'a, str> {
    let host = if route.key_host { locate::host(head) } else { "" };
    key_for(route, located.path.as_str(), located.query, host)
}

/// The key of another path of the same route.
pub(super) fn key_for<'a>(route: &Route, path: &'a str, query: Option<&str>, host: &str) -> Cow<'a, str> {
    let query = route.key_query(query);
    if query.is_none() && !route.key_host {
        return Cow::Borrowed(path);
    }
    let mut key = path.to_owned();
    if let Some(query) = query {
        key.push('?');
        key.push_str(&query);
    }
    if route.key_host {
        // A space stands in no path and no query.
        key.push(' ');
        key.push_str(&host.to_ascii_lowercase());
    }
    Cow::Owned(key)
}

/// What the cache fetches when it has to.
pub(super) fn wanted(route: &Arc<Route>, located: &Located<'_>, head: &http::request::Parts, key: String) -> Wanted {
    let mut target = located.path.as_str().to_owned();
    if let Some(query) = route.key_query(located.query) {
        target.push('?');
        target.push_str(&query);
    }
    let mut headers = HeaderMap::new();
    if route.auth == Auth::None {
        headers = super::pass::end_to_end(route, &head.headers);
        // What is stored is whole and unconditional, whatever this client asks for.
        for name in [
            header::RANGE,
            header::IF_RANGE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
            header::ACCEPT_ENCODING,
        ] {
            headers.remove(name);
        }
    }
    super::pass::add_via(&mut headers, head.version);
    let authorized = headers.contains_key(header::AUTHORIZATION);
    // A playlist may have to be cut, which takes the whole of it.
    let in_parts = head.method == Method::GET && Playlist::of(located.path.as_str()).is_none();
    let field = |name| head.headers.get(name).filter(|_| in_parts).cloned();
    let (range, if_range) = (field(header::RANGE), field(header::IF_RANGE));
    Wanted { route: Arc::clone(route), key, target, headers, authorized, range, if_range }
}
