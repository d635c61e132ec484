//! One request of an HTTP/3 connection: its header's checks, the call of the handler, and the response.

use std::sync::Arc;

use bytes::Bytes;
use h3::error::Code;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use lyceum_core::time::Clock;
use lyceum_http::{fields, problem};

use crate::activity::{Activity, InFlightRequest};
use crate::body::RequestBody;
use crate::client_limits::Client;
use crate::context::ListenerContext;
use crate::error::BoxError;
use crate::handler::Handler;
use crate::http3::body::QuicBody;
use crate::metrics::EndReason;
use crate::peer::Peer;
use crate::revocable::RevocationCheck;

/// Bytes of a body that are record_queued to QUIC at once: what a client has to take within `window`.
const MAX_PIECE_BYTES: usize = 16 << 10;

/// A request's stream, and what serves it.
pub(crate) struct RequestStream<H> {
    pub(crate) handler: H,
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) in_flight: InFlightRequest,
    pub(crate) activity: Arc<Activity>,
    pub(crate) context: Arc<ListenerContext>,
    pub(crate) connection: quinn::Connection,
}

type Resolver = h3::server::RequestResolver<h3_quinn::Connection, Bytes>;
type Sender = h3::server::RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;

impl<H: Handler> RequestStream<H> {
    pub(crate) async fn serve(mut self, resolver: Resolver) {
        if let Err(cause) = self.try_serve(resolver).await {
            tracing::debug!(cause, "an HTTP/3 request failed");
        }
    }

    async fn try_serve(&mut self, resolver: Resolver) -> Result<(), BoxError> {
        let time = self.context.limits.header.get();
        let (request, stream) = match tokio::time::timeout(time, resolver.resolve_request()).await {
            Ok(resolved) => resolved?,
            Err(late) => {
                self.context.metrics.record_end(EndReason::Header);
                return Err(late.into());
            }
        };
        let (mut send, receive) = stream.split();
        if is_malformed(request.headers()) {
            send.stop_stream(Code::H3_MESSAGE_ERROR);
            return Ok(());
        }
        if request.headers().len() as u64 > self.context.limits.header_fields {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            let refusal = problem::response(status, "too_many_fields", "The request has too many header fields.");
            return self.send(&mut send, refusal.map(http_body_util::Full::<Bytes>::new)).await;
        }
        let is_head = request.method() == http::Method::HEAD;
        let body = QuicBody::open(receive, request.headers(), Arc::clone(&self.activity)).await?;
        let request = request.map(|()| RequestBody::from(body));
        // The client's address may have changed since it connected (RFC 9000, section 9).
        let peer = Peer { address: self.connection.remote_address(), tls: true };
        let response = self.context.dispatch(&self.handler, peer, self.client.as_ref(), request).await;
        if is_head {
            let (head, _) = response.into_parts();
            return self.send(&mut send, Response::from_parts(head, http_body_util::Empty::new())).await;
        }
        self.send(&mut send, response).await
    }

    async fn send<B>(&mut self, send: &mut Sender, response: Response<B>) -> Result<(), BoxError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let (mut head, mut body) = response.into_parts();
        fields::strip_hop_by_hop(&mut head.headers);
        add_date(&mut head.headers);
        if let Some(check) = head.extensions.remove::<RevocationCheck>() {
            self.in_flight.set_revocation_check(check);
        }
        send.send_response(Response::from_parts(head, ())).await?;
        while let Some(frame) = body.frame().await.map(|frame| frame.map_err(Into::<BoxError>::into)) {
            let frame = match frame {
                Ok(frame) => frame,
                Err(cause) => {
                    // A reset, so that the client does not take a truncated body for a whole one.
                    send.stop_stream(Code::H3_INTERNAL_ERROR);
                    return Err(cause);
                }
            };
            let Ok(mut data) = frame.into_data() else { continue };
            while !data.is_empty() {
                let piece = data.split_to(MAX_PIECE_BYTES.min(data.len()));
                let length = piece.len();
                self.in_flight.record_queued(length);
                let sent = tokio::time::timeout(self.context.limits.window.get(), send.send_data(piece)).await;
                self.in_flight.record_taken();
                match sent {
                    Ok(sent) => sent?,
                    Err(late) => {
                        self.context.metrics.record_end(EndReason::Window);
                        send.stop_stream(Code::H3_REQUEST_CANCELLED);
                        return Err(late.into());
                    }
                }
                self.activity.record_written(length);
            }
        }
        send.finish().await?;
        Ok(())
    }
}

/// A server with a clock sends `Date` (RFC 9110, section 6.6.1); hyper does for the other versions.
fn add_date(headers: &mut HeaderMap) {
    if !headers.contains_key(header::DATE)
        && let Ok(now) = HeaderValue::try_from(fields::format_date(Clock::system().system_time()))
    {
        headers.insert(header::DATE, now);
    }
}

/// Connection-specific fields make a request malformed (RFC 9114, section 4.2).
fn is_malformed(headers: &HeaderMap) -> bool {
    let connection_specific = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    connection_specific.iter().any(|name| headers.contains_key(name))
        || headers.contains_key("keep-alive")
        || headers.contains_key("proxy-connection")
        || headers.get(header::TE).is_some_and(|te| te != "trailers")
}
