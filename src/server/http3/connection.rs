//! Serves an HTTP/3 connection (RFC 9114).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::Code;
use quinn::VarInt;
use tokio::task::JoinSet;

use crate::activity::Activity;
use crate::client_limits::Client;
use crate::context::ListenerContext;
use crate::error::BoxError;
use crate::handler::Handler;
use crate::http3::request::RequestStream;
use crate::metrics::EndReason;
use crate::watchdog;

/// How long a drained connection stays open for the client to receive what was sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type H3Connection = h3::server::Connection<h3_quinn::Connection, Bytes>;

/// Serves it to its end; gives the limit that ended it, if one did.
pub(crate) async fn serve<H: Handler>(
    connection: quinn::Connection,
    handler: H,
    client: Option<Arc<Client>>,
    context: &Arc<ListenerContext>,
) -> Result<Option<EndReason>, BoxError> {
    let limits = &context.limits;
    let mut builder = h3::server::builder();
    builder.max_field_section_size(limits.header_bytes.0).send_grease(false);
    let building = builder.build(h3_quinn::Connection::new(connection.clone()));
    let mut requests: H3Connection = tokio::time::timeout(limits.header.get(), building).await??;
    let activity = Arc::new(Activity::with_request_tasks());
    let mut in_flight = JoinSet::new();
    let mut draining = false;
    let mut exceeded = pin!(watchdog::exceeded(&activity, limits, true));
    let ended = loop {
        tokio::select! {
            accepted = requests.accept() => match accepted {
                Ok(Some(resolver)) => {
                    let stream = RequestStream {
                        handler: handler.clone(),
                        client: client.clone(),
                        in_flight: activity.begin_request(),
                        activity: Arc::clone(&activity),
                        context: Arc::clone(context),
                        connection: connection.clone(),
                    };
                    in_flight.spawn(stream.serve(resolver));
                }
                Ok(None) => break None,
                Err(cause) if cause.is_h3_no_error() => break None,
                Err(cause) => return Err(cause.into()),
            },
            Some(_) = in_flight.join_next() => {}
            reason = exceeded.as_mut() => break Some(reason),
            () = context.shutdown.draining(), if !draining => {
                draining = true;
                requests.shutdown(0).await?;
            }
        }
        if draining && in_flight.is_empty() {
            break None;
        }
    };
    while ended.is_none() && in_flight.join_next().await.is_some() {}
    if ended.is_none() {
        // Closing discards what was sent and not acknowledged (RFC 9000, section 10.2): the client, which got a GOAWAY, is
        // given time to close the connection itself.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.closed()).await;
    }
    let code = if ended.is_some() { Code::H3_EXCESSIVE_LOAD } else { Code::H3_NO_ERROR };
    connection.close(VarInt::from_u64(code.value()).unwrap_or(VarInt::from_u32(0)), b"");
    Ok(ended)
}
