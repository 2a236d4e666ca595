const _: () = {
    use crate::__private as __outbox;
    #[derive(__outbox::serde::Serialize)]
    #[serde(
        crate = "__outbox::serde",
        remote = "PaymentEvent",
        untagged,
        bound(serialize = "T : __outbox :: serde :: Serialize"),
        rename_all_fields = "camelCase"
    )]
    #[allow(dead_code, deprecated, nonstandard_style, clippy::all, clippy::pedantic)]
    enum __OutboxEncode<T> {
        Charged {
            order_id: i64,
            #[serde(skip_serializing_if = "Option::is_none")]
            tenant: Option<String>,
            content: T,
        },
        Refunded(i64),
        Paused,
    }
    #[automatically_derived]
    #[allow(deprecated)]
    impl<T> __outbox::OutboxEvent for PaymentEvent<T>
    where
        T: __outbox::serde::Serialize,
        PaymentEvent<T>: __outbox::core::marker::Send + __outbox::core::marker::Sync,
    {
        fn meta(&self) -> __outbox::EventMeta<'_> {
            match self {
                Self::Charged { order_id: field_order_id, tenant: field_tenant, .. } => {
                    __outbox::EventMeta::new("payment.charged")
                        .version(1u16)
                        .topic("payments")
                        .key(<i64 as __outbox::KeyPart>::key_part(field_order_id))
                        .header(
                            "tenant",
                            <Option<String> as __outbox::KeyPart>::key_part(field_tenant),
                        )
                        .retry(
                            <__outbox::RetryPolicy as __outbox::core::default::Default>::default()
                                .max_attempts(12u32),
                        )
                }
                Self::Refunded { 0: field_0, .. } => {
                    __outbox::EventMeta::new("payment.returned")
                        .version(1u16)
                        .topic("returns")
                        .key(<i64 as __outbox::KeyPart>::key_part(field_0))
                        .ttl(__outbox::core::time::Duration::from_millis(3600000u64))
                        .retry(
                            <__outbox::RetryPolicy as __outbox::core::default::Default>::default()
                                .max_attempts(12u32),
                        )
                }
                Self::Paused { .. } => {
                    __outbox::EventMeta::new("payment.paused")
                        .version(1u16)
                        .topic("payments")
                        .retry(
                            <__outbox::RetryPolicy as __outbox::core::default::Default>::default()
                                .max_attempts(12u32),
                        )
                }
            }
        }
        fn payload(
            &self,
        ) -> __outbox::core::result::Result<__outbox::Bytes, __outbox::EncodeError> {
            match self {
                Self::Charged { .. } => {
                    __outbox::encode_with(
                        "payment.charged",
                        |out| __OutboxEncode::serialize(self, out),
                    )
                }
                Self::Refunded { .. } => {
                    __outbox::encode_with(
                        "payment.returned",
                        |out| __OutboxEncode::serialize(self, out),
                    )
                }
                Self::Paused => {
                    __outbox::core::result::Result::Ok(__outbox::empty_json())
                }
            }
        }
    }
    #[automatically_derived]
    impl<T> __outbox::EventContract for PaymentEvent<T> {
        const TYPES: &'static [__outbox::EventType] = &[
            __outbox::EventType {
                name: "payment.charged",
                version: 1u16,
                topic: "payments",
            },
            __outbox::EventType {
                name: "payment.returned",
                version: 1u16,
                topic: "returns",
            },
            __outbox::EventType {
                name: "payment.paused",
                version: 1u16,
                topic: "payments",
            },
        ];
    }
    #[derive(__outbox::serde::Deserialize)]
    #[serde(
        crate = "__outbox::serde",
        remote = "PaymentEvent",
        bound(
            deserialize = "for < '__de > i64 : __outbox :: serde :: Deserialize < '__de > , for < '__de > Option < String > : __outbox :: serde :: Deserialize < '__de > , for < '__de > T : __outbox :: serde :: Deserialize < '__de >"
        ),
        rename_all_fields = "camelCase"
    )]
    #[allow(dead_code, deprecated, nonstandard_style, clippy::all, clippy::pedantic)]
    enum __OutboxDecode<T> {
        Charged {
            order_id: i64,
            #[serde(skip_serializing_if = "Option::is_none")]
            tenant: Option<String>,
            content: T,
        },
        Refunded(i64),
        Paused,
    }
    #[automatically_derived]
    #[allow(deprecated)]
    impl<T> __outbox::DecodeEvent for PaymentEvent<T>
    where
        for<'__de> i64: __outbox::serde::Deserialize<'__de>,
        for<'__de> Option<String>: __outbox::serde::Deserialize<'__de>,
        for<'__de> T: __outbox::serde::Deserialize<'__de>,
    {
        fn decode(
            message: &__outbox::Message,
        ) -> __outbox::core::result::Result<Self, __outbox::DecodeError> {
            match message.event_type.as_str() {
                "payment.charged" => {
                    __outbox::Upcast::begin(message, 1u16)
                        .variant(
                            "Charged",
                            |content| <__OutboxDecode<T>>::deserialize(content),
                        )
                }
                "payment.returned" => {
                    __outbox::Upcast::begin(message, 1u16)
                        .variant(
                            "Refunded",
                            |content| <__OutboxDecode<T>>::deserialize(content),
                        )
                }
                "payment.paused" => {
                    __outbox::Upcast::begin(message, 1u16).unit().map(|()| Self::Paused)
                }
                _ => {
                    __outbox::core::result::Result::Err(
                        __outbox::DecodeError::unknown_type(
                            message,
                            <Self as __outbox::EventContract>::TYPES,
                        ),
                    )
                }
            }
        }
    }
};
