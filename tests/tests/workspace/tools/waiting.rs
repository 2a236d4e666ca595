//! Waiting until something holds.

use std::{future::pending, time::Duration};
use tests::{equals, holds_within, wait_until};

#[tokio::test(start_paused = true)]
async fn a_wait_ends_as_soon_as_its_condition_holds() {
    let mut looks = 0;
    let begun = tokio::time::Instant::now();
    wait_until(Duration::from_secs(10), "three looks", async || {
        looks += 1;
        looks == 3
    })
    .await;
    assert_eq!(looks, 3);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "not within 2s: the moon is made of cheese")]
async fn a_wait_in_vain_fails_with_what_was_waited_for() {
    wait_until(Duration::from_secs(2), "the moon is made of cheese", async || false).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(
    expected = "not within 1s: all have come; seen last of 3 times: 3 in place of 7; the next poll took over 9"
)]
async fn a_wait_in_vain_says_what_it_saw_last_and_that_a_look_hangs() {
    let mut looks = 0;
    wait_until(Duration::from_secs(1), "all have come", async || {
        looks += 1;
        if looks > 3 {
            pending::<()>().await;
        }
        equals(looks, 7)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_hangs_does_not_outlast_the_deadline() {
    let begun = tokio::time::Instant::now();
    assert!(!holds_within(Duration::from_secs(3), async || pending::<bool>().await).await);
    assert_eq!(begun.elapsed().as_secs(), 3);
}
