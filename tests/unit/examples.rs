//! Snapshots and their parts, as unit tests need them. Tests only.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::error::{FetchError, Reason};
use crate::model::{ConnectionStats, Gateway, GatewayReport, Outcome, Snapshot, Timestamp};
use crate::things_stack::BaseUrl;

/// With an id and nothing else.
pub fn gateway(id: &str) -> Arc<Gateway> {
    Arc::new(Gateway {
        gateway_id: id.to_owned(),
        ..Gateway::default()
    })
}

pub fn cluster(host: &str) -> Arc<BaseUrl> {
    Arc::new(BaseUrl::parse(host).expect("the test's own URL"))
}

pub fn timestamp(seconds: i64) -> Option<Timestamp> {
    let nanoseconds = 0;
    Some(Timestamp {
        seconds,
        nanoseconds,
    })
}

/// What the decoder makes of stats that say nothing: no text, no moment, and zero messages.
pub fn empty_stats() -> ConnectionStats {
    ConnectionStats {
        uplink_count: Some(0),
        downlink_count: Some(0),
        tx_acknowledgment_count: Some(0),
        tells_state: true,
        ..ConnectionStats::default()
    }
}

/// Connected since the first second of 1970, with so many uplinks.
pub fn connected(uplink_count: u64) -> Outcome {
    Ok(Some(Arc::new(ConnectionStats {
        connected_at: timestamp(1),
        uplink_count: Some(uplink_count),
        ..empty_stats()
    })))
}

/// A failure of the API.
pub fn failed(reason: Reason) -> Outcome {
    Err(Arc::new(FetchError::new(reason, "what happened")))
}

/// A failure that concerns one gateway.
pub fn refused(reason: Reason) -> Outcome {
    let error = FetchError::new(reason, "what happened");
    Err(Arc::new(error.of_gateway()))
}

/// At the cluster `eu1`.
pub fn report(id: &str, outcome: Outcome) -> GatewayReport {
    GatewayReport {
        gateway: gateway(id),
        cluster: "eu1".into(),
        outcome,
        uplinks_per_hour: None,
    }
}

/// Made at the beginning of 1970, without failures of the list.
pub fn snapshot(gateways: Vec<GatewayReport>) -> Snapshot {
    Snapshot {
        gateways,
        is_api_up: true,
        collected: Some((UNIX_EPOCH, Duration::ZERO)),
        ..Snapshot::default()
    }
}
