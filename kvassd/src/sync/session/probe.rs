//! Whether the other side is still there after this machine slept: a connection that died meanwhile seems alive.

use std::time::Duration;

use kvass_proto::v1::{self, sync_frame::Frame};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::jump::jumped;
use super::send::Outbox;
use super::{Ended, SessionError};
use crate::clock::Clock;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What the numbers of probes have that those of other questions have not.
const PROBE: u64 = 1 << 63;

/// Whether an answer is one to a probe.
pub(super) fn is_probe(number: u64) -> bool {
    number & PROBE != 0
}

/// Asks the other side after each jump of the clock, and returns when it does not answer.
pub(super) async fn probe(
    clock: Clock,
    outbox: Outbox,
    mut answered: watch::Receiver<u64>,
) -> Result<Ended, SessionError> {
    let mut number = PROBE;
    loop {
        jumped(&clock).await;
        number += 1;
        outbox.urgent(Frame::HeadWant(v1::HeadWant { number }));
        if !matches!(timeout(ANSWER, answered.wait_for(|answer| *answer == number)).await, Ok(Ok(_))) {
            tracing::info!("the other side does not answer after a jump of the clock");
            return Ok(Ended::Gone);
        }
    }
}
