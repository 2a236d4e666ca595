//! Stops the process at a fault point, for ever.

use outbox_sea_orm::runtime::fault::{FaultPoint, install};
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

static POINT: OnceLock<FaultPoint> = OnceLock::new();
/// Reaches that are still let pass, and the one that is not.
static LEFT: AtomicU64 = AtomicU64::new(0);
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Stops at the `nth` reach of a point, from 1.
pub(crate) fn at(point: &str, nth: u64) {
    let named =
        FaultPoint::ALL.into_iter().chain(FaultPoint::OF_SAGAS).find(|p| format!("{p:?}") == point);
    POINT.set(named.unwrap()).unwrap();
    LEFT.store(nth, Ordering::SeqCst);
    install(reached);
}

fn reached(point: FaultPoint) {
    let is_the_one = POINT.get() == Some(&point) && LEFT.fetch_sub(1, Ordering::SeqCst) == 1;
    if is_the_one {
        STOPPED.store(true, Ordering::SeqCst);
        println!("reached {point:?}");
    }
    // Whatever comes to a point after that stops too, until the process is killed.
    while STOPPED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
