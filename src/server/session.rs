//! The requests of one TCP connection: each becomes a call of the handler and a tracked response.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::activity::{Activity, InFlightRequest};
use crate::body::{RequestBody, TrackedBody};
use crate::client_limits::Client;
use crate::context::ListenerContext;
use crate::handler::{Handler, ResponseFuture};
use crate::peer::Peer;
use crate::revocable::RevocationCheck;

/// Who asks on a connection, and who responds.
pub(crate) struct Session<H> {
    pub(crate) handler: H,
    pub(crate) peer: Peer,
    /// `None` where the peer is exempt from client limits, or is a proxy whose clients are counted by request.
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) context: Arc<ListenerContext>,
}

impl<H: Handler> Session<H> {
    /// Responds to one request.
    pub(crate) fn respond(&self, request: Request<Incoming>, activity: &Arc<Activity>) -> SessionFuture<H::Body> {
        let in_flight = activity.begin_request();
        let request = request.map(RequestBody::from);
        let response = self.context.dispatch(&self.handler, self.peer, self.client.as_ref(), request);
        SessionFuture { response, in_flight: Some(in_flight), alt_svc: self.context.alt_svc.clone() }
    }
}

/// A response as hyper awaits it.
pub(crate) struct SessionFuture<B> {
    response: ResponseFuture<B>,
    /// Moved to the body once there is a response.
    in_flight: Option<InFlightRequest>,
    alt_svc: Option<HeaderValue>,
}

impl<B: Unpin> Future for SessionFuture<B> {
    type Output = Result<Response<TrackedBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let (ResponseFuture::Prepared(_, head), Some(in_flight)) = (&mut this.response, &this.in_flight) {
            in_flight.offer_prepared_head(head);
        }
        let mut response = ready!(Pin::new(&mut this.response).poll(cx));
        if let Some(alt_svc) = this.alt_svc.take() {
            response.headers_mut().insert(header::ALT_SVC, alt_svc);
        }
        let mut in_flight = this.in_flight.take();
        if let (Some(in_flight), Some(check)) = (&mut in_flight, response.extensions_mut().remove::<RevocationCheck>())
        {
            in_flight.set_revocation_check(check);
        }
        Poll::Ready(Ok(response.map(|body| TrackedBody::new(body, in_flight))))
    }
}
