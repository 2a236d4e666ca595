//! Pauses and rates.

use crate::world::World;
use outbox_core::admin::{ControlAction, ControlScope, ControlStore};
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn a_route_is_paused_limited_and_resumed_and_the_second_hears_that_it_was(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let client = world.client();
        let billing = [("db", "orders"), ("scope", "route"), ("name", "billing"), ("why", "they migrate")];
        let with = |more: &[(&'static str, &'static str)]| [&billing[..], more].concat();
        let (to, _) = client.submit("/controls", &with(&[("do", "pause"), ("lasts", "1h")])).await;
        assert_eq!(to, "/routes?db=orders");
        client.submit("/controls", &with(&[("do", "rate"), ("per_second", "2.5")])).await;
        let controls = world.outbox.controls().await.unwrap();
        let pause = controls.pause(ControlScope::Route, "billing").expect("it is paused");
        assert_eq!((pause.by.as_str(), pause.reason.as_str()), ("loopback", "they migrate"));
        assert!(pause.until.is_some() && pause.action == ControlAction::Pause);
        assert_eq!(controls.rate("billing"), Some(2.5));

        client.submit("/controls", &with(&[("do", "resume")])).await;
        assert!(world.outbox.controls().await.unwrap().0.is_empty());
        let late = client.post("/controls", &with(&[("do", "resume")])).await;
        late.says(409, &["Route billing is neither paused nor limited"]);
        let acts: Vec<String> = world.audit().await.into_iter().map(|row| row.act).collect();
        assert_eq!(acts, ["pause", "rate", "resume"]);
    }

    async fn a_control_that_is_wrong_is_refused_with_the_reason(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let client = world.client();
        let route = ("scope", "route");
        for (form, status, says) in [
            (vec![("do", "rate"), route, ("name", "billing"), ("per_second", "0")], 409, "pause the route to stop it"),
            (vec![("do", "rate"), route, ("name", "billing"), ("per_second", "NaN")], 409, "a rate of NaN"),
            (vec![("do", "rate"), ("scope", "key"), ("name", "7"), ("per_second", "1")], 409, "a rate is set for a route"),
            (vec![("do", "rate"), route, ("name", "billing")], 400, "the field `per_second` is missing"),
            (vec![("do", "pause"), route, ("name", "billing"), ("lasts", "soon")], 400, "a span of time"),
            (vec![("do", "pause"), route, ("name", "billing"), ("lasts", "0s")], 409, "lasts for 1ms at least"),
            (vec![("do", "pause"), route], 400, "the field `name` is missing"),
            (vec![("do", "pause"), ("scope", "world"), ("name", "x")], 400, "`scope` is `route`"),
            (vec![("do", "stop"), route, ("name", "x")], 400, "`do` is `pause`, `resume` or `rate`"),
        ] {
            let form = [&form[..], &[("why", "x")]].concat();
            let answer = client.post("/controls", &form).await;
            answer.says(status, &[says]);
        }
        assert!(world.audit().await.is_empty() && world.outbox.controls().await.unwrap().0.is_empty());
    }
}
