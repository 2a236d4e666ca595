const _: () = {
    use outbox_core::__private as __outbox;
    #[automatically_derived]
    #[allow(deprecated)]
    impl __outbox::OutboxEvent for OrderPlaced {
        fn meta(&self) -> __outbox::EventMeta<'_> {
            __outbox::EventMeta::new("order.placed")
                .version(2u16)
                .topic("orders")
                .aggregate("order")
                .key(<i64 as __outbox::KeyPart>::key_part(&self.order_id))
                .header("origin", __outbox::core::option::Option::Some("shop"))
                .header(
                    "tenant",
                    <Option<String> as __outbox::KeyPart>::key_part(&self.tenant),
                )
                .ttl(__outbox::core::time::Duration::from_millis(604800000u64))
                .retry(
                    <__outbox::RetryPolicy as __outbox::core::default::Default>::default()
                        .max_attempts(3u32)
                        .factor(2f64)
                        .backoff(__outbox::core::time::Duration::from_millis(1000u64))
                        .max_backoff(
                            __outbox::core::time::Duration::from_millis(2000u64),
                        ),
                )
        }
        fn payload(
            &self,
        ) -> __outbox::core::result::Result<__outbox::Bytes, __outbox::EncodeError> {
            __outbox::encode_json::<OrderPlaced>("order.placed", self)
        }
        fn as_any(
            &self,
        ) -> __outbox::core::option::Option<&dyn __outbox::core::any::Any> {
            __outbox::core::option::Option::Some(self)
        }
    }
    #[automatically_derived]
    impl __outbox::EventContract for OrderPlaced {
        const TYPES: &'static [__outbox::EventType] = &[
            __outbox::EventType {
                name: "order.placed",
                version: 2u16,
                topic: "orders",
            },
        ];
    }
    #[automatically_derived]
    #[allow(deprecated)]
    impl __outbox::DecodeEvent for OrderPlaced
    where
        for<'__de> OrderPlaced: __outbox::serde::Deserialize<'__de>,
    {
        fn decode(
            message: &__outbox::Message,
        ) -> __outbox::core::result::Result<Self, __outbox::DecodeError> {
            match message.event_type.as_str() {
                "order.placed" => {
                    __outbox::Upcast::begin(message, 2u16).step(1u16, v1_to_v2)?.json()
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
const _: () = {
    use outbox_core::__private as __outbox;
    #[automatically_derived]
    #[allow(deprecated)]
    impl<'a, T> __outbox::OutboxEvent for Note<'a, T>
    where
        Note<'a, T>: __outbox::serde::Serialize,
        Note<'a, T>: __outbox::core::marker::Send + __outbox::core::marker::Sync,
    {
        fn meta(&self) -> __outbox::EventMeta<'_> {
            __outbox::EventMeta::new("note.taken")
                .version(1u16)
                .topic("note.taken")
                .key(<&'a str as __outbox::KeyPart>::key_part(&self.0))
        }
        fn payload(
            &self,
        ) -> __outbox::core::result::Result<__outbox::Bytes, __outbox::EncodeError> {
            __outbox::encode_json::<Note<'a, T>>("note.taken", self)
        }
    }
    #[automatically_derived]
    impl<'a, T> __outbox::EventContract for Note<'a, T> {
        const TYPES: &'static [__outbox::EventType] = &[
            __outbox::EventType {
                name: "note.taken",
                version: 1u16,
                topic: "note.taken",
            },
        ];
    }
};
