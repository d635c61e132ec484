//! Serves an HTTP/2 connection (RFC 9113). An idle one hibernates: hyper's connection is dropped, and replaced by a new one
//! with the same state when its client speaks again.

use std::future::poll_fn;
use std::task::Poll;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lyceum_core::time::monotonic;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::context::ListenerContext;
use crate::error::BoxError;
use crate::handler::Handler;
use crate::http2::hibernation::{HibernatingStream, Polled};
use crate::http2::inline_executor::InlineExecutor;
use crate::http2::write_coalescing::WriteHold;
use crate::interrupts::{Interrupt, Interrupts};
use crate::io::instrumented::Instrumented;
use crate::io::poll_readable::PollReadable;
use crate::metrics::{EndReason, GaugeGuard};
use crate::session::Session;

/// Serves it to its end; gives the limit that ended it, if one did. `hold` is below the socket's TLS, where it has that.
pub(crate) async fn serve<H, S>(
    session: Session<H>,
    socket: Instrumented<S>,
    hold: Option<WriteHold>,
) -> Result<Option<EndReason>, BoxError>
where
    H: Handler,
    S: AsyncRead + AsyncWrite + PollReadable + Unpin + Send + 'static,
{
    let limits = &*session.context.limits;
    let activity = socket.activity();
    let stream = HibernatingStream::new(socket, hold);
    let mut builder = http2::Builder::new(InlineExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX));
    let connect = || {
        let service = service_fn(|request| session.respond(request, &activity));
        Box::pin(builder.serve_connection(TokioIo::new(stream.clone()), service))
    };
    let mut connection = connect();
    let mut interrupts = Interrupts::new(&activity, limits, &session.context.shutdown, true);
    // The number of requests when the connection was last seen idle, and since when it has not changed.
    let (mut idle_requests, mut idle_since) = (0, monotonic());
    loop {
        let interrupt = tokio::select! {
            biased;
            polled = poll_fn(|cx| stream.poll(connection.as_mut(), cx)) => match polled? {
                Polled::Done(done) => return done.map(|()| None).map_err(Into::into),
                Polled::Hibernate => None,
            },
            interrupt = interrupts.next() => Some(interrupt),
        };
        match interrupt {
            Some(Interrupt::Limit(reason)) => return Ok(Some(reason)),
            Some(Interrupt::Drain) => connection.as_mut().graceful_shutdown(),
            Some(Interrupt::Idle) => {
                interrupts.rearm_idle();
                let requests = stream.requests();
                if requests != idle_requests {
                    (idle_requests, idle_since) = (requests, monotonic());
                } else if idle_since.elapsed() >= limits.rest.get() {
                    poll_fn(|cx| Poll::Ready(stream.poll_seek_hibernation(cx))).await?;
                }
            }
            None => {
                drop(connection);
                match hibernate(&session.context, &stream, &mut interrupts).await? {
                    Some(Interrupt::Limit(reason)) => return Ok(Some(reason)),
                    Some(_) => {
                        poll_fn(|cx| Poll::Ready(stream.poll_close(cx))).await?;
                        return Ok(None);
                    }
                    None => {}
                }
                connection = connect();
                poll_fn(|cx| Poll::Ready(stream.poll_resume(connection.as_mut(), cx))).await?;
            }
        }
    }
}

/// Waits until the client speaks (`None`), or an interrupt ends the connection.
async fn hibernate<S: PollReadable>(
    context: &ListenerContext,
    stream: &S,
    interrupts: &mut Interrupts<'_>,
) -> std::io::Result<Option<Interrupt>> {
    let _resting = GaugeGuard::new(&context.metrics.resting);
    loop {
        tokio::select! {
            biased;
            readable = poll_fn(|cx| stream.poll_readable(cx)) => return readable.map(|()| None),
            interrupt = interrupts.next() => match interrupt {
                Interrupt::Idle => interrupts.rearm_idle(),
                interrupt => return Ok(Some(interrupt)),
            },
        }
    }
}
