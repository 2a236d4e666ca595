//! Stops the process at a fault point, for ever.

use outbox_core::runtime::fault::{FaultPoint, install_hook};
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

static POINT: OnceLock<FaultPoint> = OnceLock::new();
/// Reaches that still pass, and the one that does not.
static LEFT: AtomicU64 = AtomicU64::new(0);
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Stops at the `nth` reach of a point, from 1.
pub(crate) fn at(point: &str, nth: u64) {
    let named =
        FaultPoint::ALL.into_iter().chain(FaultPoint::OF_SAGAS).find(|p| format!("{p:?}") == point);
    POINT.set(named.unwrap()).unwrap();
    LEFT.store(nth, Ordering::SeqCst);
    install_hook(reached);
}

fn reached(point: FaultPoint) {
    let is_the_one = POINT.get() == Some(&point) && LEFT.fetch_sub(1, Ordering::SeqCst) == 1;
    if is_the_one {
        STOPPED.store(true, Ordering::SeqCst);
        println!("reached {point:?}");
    }
    // Every later reach of a point stops too, until the process is killed.
    while STOPPED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
