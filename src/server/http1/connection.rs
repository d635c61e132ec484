//! Serves an HTTP/1.1 connection (RFC 9112). While no request is in flight there is no hyper connection either, whose
//! buffers are most of an idle connection's memory: only its socket is polled.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::error::BoxError;
use crate::handler::Handler;
use crate::interrupts::{Interrupt, Interrupts};
use crate::io::instrumented::Instrumented;
use crate::io::poll_readable::PollReadable;
use crate::metrics::{EndReason, GaugeGuard};
use crate::session::Session;

/// Serves it to its end; gives the limit that ended it, if one did.
pub(crate) async fn serve<H, S>(session: Session<H>, mut socket: Instrumented<S>) -> Result<Option<EndReason>, BoxError>
where
    H: Handler,
    S: AsyncRead + AsyncWrite + PollReadable + Unpin + Send + 'static,
{
    let (activity, context) = (socket.activity(), Arc::clone(&session.context));
    let limits = &*context.limits;
    let mut builder = http1::Builder::new();
    builder
        // The watchdog limits the time that headers take.
        .header_read_timeout(None)
        .max_headers(usize::try_from(limits.header_fields).unwrap_or(usize::MAX))
        .max_header_size(limits.header_bytes.as_usize())
        .max_buf_size(limits.header_bytes.as_usize().max(H::BODY_READ))
        .half_close(false);
    let counters = Arc::clone(&activity);
    let mut service = service_fn(move |request| session.respond(request, &counters));
    let mut interrupts = Interrupts::new(&activity, limits, &context.shutdown, false);
    loop {
        let mut connection = builder.serve_connection(TokioIo::new(socket), service);
        loop {
            let interrupt = tokio::select! {
                biased;
                done = &mut connection => return done.map(|()| None).map_err(Into::into),
                interrupt = interrupts.next() => interrupt,
            };
            match interrupt {
                Interrupt::Limit(reason) => return Ok(Some(reason)),
                Interrupt::Drain => {
                    Pin::new(&mut connection).graceful_shutdown();
                    return connection.await.map(|()| None).map_err(Into::into);
                }
                Interrupt::Idle => {
                    interrupts.rearm_idle();
                    if activity.is_idle() {
                        break;
                    }
                }
            }
        }
        let parts = connection.into_parts();
        (socket, service) = (parts.io.into_inner(), parts.service);
        socket.unread(parts.read_buf);
        let resting = GaugeGuard::new(&context.metrics.resting);
        loop {
            let interrupt = tokio::select! {
                biased;
                readable = poll_fn(|cx| socket.poll_readable(cx)) => break readable?,
                interrupt = interrupts.next() => interrupt,
            };
            match interrupt {
                Interrupt::Limit(reason) => return Ok(Some(reason)),
                Interrupt::Drain => {
                    let _ = socket.shutdown().await;
                    return Ok(None);
                }
                Interrupt::Idle => interrupts.rearm_idle(),
            }
        }
        drop(resting);
    }
}
