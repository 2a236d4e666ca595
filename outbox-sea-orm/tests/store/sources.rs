//! Whose events an outbox has.

use outbox_sea_orm::{Outbox, OutboxBuilder, OutboxError};
use tests::{databases::TempDatabase, on_every_database};

async fn builder(temp: &TempDatabase) -> OutboxBuilder {
    Outbox::builder(temp.connect().await)
}

/// Tells what is said of a builder that is refused.
async fn refused(builder: OutboxBuilder) -> String {
    match builder.build().await {
        Err(OutboxError::Configuration(faults)) => faults.join("; "),
        Err(other) => panic!("{other:?}"),
        Ok(outbox) => panic!("the outbox of another service was opened as `{}`", outbox.source()),
    }
}

on_every_database! {
    async fn a_service_is_refused_on_the_outbox_of_another_one_unless_it_is_shared_or_renamed(temp: &TempDatabase) {
        let tool = builder(temp).await.install().await.unwrap();
        assert_eq!(tool.source(), "outbox", "nobody has said one");
        builder(temp).await.source("shop").build().await.unwrap();
        builder(temp).await.source("shop").install().await.unwrap();
        assert_eq!(builder(temp).await.build().await.unwrap().source(), "shop", "a tool takes what is written down");

        let said = refused(builder(temp).await.source("bank")).await;
        for word in ["`shop`", "`bank`", "namespace", "shared()", "rename_source(\"shop\")"] {
            assert!(said.contains(word), "{said}");
        }
        let installed = builder(temp).await.source("bank").install().await;
        assert!(matches!(installed, Err(OutboxError::Configuration(_))), "{installed:?}");
        builder(temp).await.source("bank").namespace("bank").install().await.unwrap();
        assert_eq!(builder(temp).await.source("bank").shared().build().await.unwrap().source(), "bank");
        refused(builder(temp).await.source("market").rename_source("store")).await;

        for _ in 0..2 {
            let renamed = builder(temp).await.source("market").rename_source("shop").build().await.unwrap();
            assert_eq!(renamed.source(), "market");
        }
        refused(builder(temp).await.source("shop")).await;
        assert_eq!(builder(temp).await.build().await.unwrap().source(), "market");
    }

    async fn of_services_that_start_at_once_one_has_the_outbox(temp: &TempDatabase) {
        builder(temp).await.install().await.unwrap();
        for round in 0..5 {
            let name = |n: u32| format!("service-{round}-{n}");
            let space = format!("round_{round}");
            builder(temp).await.namespace(&space).install().await.unwrap();
            let mut starts = Vec::new();
            for n in 0..4 {
                starts.push(builder(temp).await.namespace(&space).source(name(n)).build());
            }
            let started = futures_util::future::join_all(starts).await;
            let owners: Vec<String> = started.into_iter().flatten().map(|outbox| outbox.source().to_owned()).collect();
            assert_eq!(owners.len(), 1, "{owners:?}");
            assert_eq!(builder(temp).await.namespace(&space).build().await.unwrap().source(), owners[0]);
        }
    }
}
