//! Waits of any length.

use super::*;
use crate::saga::plan::reply_timeout;

#[test]
fn a_step_that_waits_without_end_is_planned_for_then() {
    let mut shape = shape();
    shape.steps[0].retry =
        RetryPolicy::default().backoff(Duration::MAX).max_backoff(Duration::MAX).endless();
    let failure = StepFailure::Retry("no".into());
    let fresh = Instance::default();
    let record = after_failure(&shape.steps[0], &fresh, &failure, 100, |wait| wait);
    assert!(matches!(record, Record::Failed { retry_at_us: i64::MAX, .. }), "{record:?}");
    let waiting = fresh.after(&record).expect("it follows from a failed step");
    let planned = plan(&shape, &waiting, When { now_us: 100, overdue: false });
    assert_eq!(planned, Plan::Wait(Duration::from_micros(i64::MAX.unsigned_abs() - 100)));
    for sends in [1, 2, u32::MAX] {
        assert_eq!(reply_timeout(Duration::MAX, sends), Duration::MAX);
    }
}
