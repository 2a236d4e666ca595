//! Packets on the wire. The client library encodes and decodes them, but for three answers of a
//! server: it knows no reason code that the standard does not list for a packet, and a server that
//! sends one (Mosquitto confirms with 0x95, packet too large) would lose its connection over it.

use crate::classify::Failure;
use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::v5::{ConnAckProperties, Packet, Publish};

/// What a server sends after its answer to CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A message.
    Publish(Publish),
    /// The answer to a message.
    PubAck(Answer),
    /// The answer to SUBSCRIBE, with the reason code of each filter.
    SubAck { id: u16, codes: Vec<u8> },
    /// The answer to PINGREQ.
    PingResp,
    /// The end of the connection.
    Disconnect(Answer),
}

/// A reason code, with the packet that it answers and the server's own words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Zero for the end of a connection.
    pub(super) id: u16,
    pub(super) code: u8,
    pub(super) words: Option<String>,
}

/// The answer to CONNECT.
#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) session_present: bool,
    pub(super) properties: Option<ConnAckProperties>,
}

/// Most bytes of the length in a packet's header.
const MAX_LENGTH_BYTES: usize = 4;
/// The property with a server's own words about a reason code.
const REASON_STRING: u8 = 0x1f;
/// The property with a name and a value.
const USER_PROPERTY: u8 = 0x26;

fn malformed(what: &str) -> Failure {
    Failure::ended(format!("the server sends no MQTT 5: {what}"))
}

/// Takes the next whole packet off the bytes that were received.
///
/// # Errors
/// The length of the packet is none.
pub(super) fn next_frame(bytes: &mut BytesMut) -> Result<Option<BytesMut>, Failure> {
    let (mut length, mut shift) = (0_usize, 0);
    for at in 1..=MAX_LENGTH_BYTES {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let whole = 1 + at + length;
            if bytes.len() < whole {
                bytes.reserve(whole - bytes.len());
                return Ok(None);
            }
            return Ok(Some(bytes.split_to(whole)));
        }
    }
    Err(malformed("the length of a packet is too long"))
}

/// The first byte of the answer to CONNECT.
const CONNACK: u8 = 0x20;
/// The first byte of a packet that ends a connection.
const DISCONNECT: u8 = 0xe0;

/// Checks the first byte that a server sends: another protocol's may look like a long packet.
pub(super) fn check_first(bytes: &[u8]) -> Result<(), Failure> {
    match bytes.first() {
        None | Some(&(CONNACK | DISCONNECT)) => Ok(()),
        Some(_) => Err(malformed("its first packet is no CONNACK")),
    }
}

/// Decodes the first packet of a server.
///
/// # Errors
/// What the server says where it does not accept the connection.
pub(super) fn read_welcome(mut frame: BytesMut) -> Result<Welcome, Failure> {
    check_first(&frame)?;
    if frame.first() == Some(&DISCONNECT) {
        let answer = read_answer(&frame, false)?;
        return Err(Failure::from_disconnect(answer.code, answer.words.as_deref()));
    }
    // A server of MQTT 3.1.1 answers without properties: 1 means "unacceptable protocol version".
    let (_, body) = split(&frame).ok_or_else(|| malformed("a CONNACK without a body"))?;
    match body.get(1) {
        Some(0 | 1) if body.len() == 2 => return Err(Failure::from_connack(0x84, None)),
        Some(&code) if code != 0 => {
            let words = body.get(2..).and_then(reason_string);
            return Err(Failure::from_connack(code, words.as_deref()));
        }
        _ => {}
    }
    match Packet::read(&mut frame, None) {
        Ok(Packet::ConnAck(ack)) => {
            Ok(Welcome { session_present: ack.session_present, properties: ack.properties })
        }
        Ok(_) => Err(malformed("its first packet is no CONNACK")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

/// Decodes a packet of a server.
///
/// # Errors
/// It is none that a server may send.
pub(super) fn read(mut frame: BytesMut) -> Result<Incoming, Failure> {
    match frame.first().map_or(0, |byte| byte >> 4) {
        3 => match Packet::read(&mut frame, None) {
            Ok(Packet::Publish(publish)) => Ok(Incoming::Publish(publish)),
            Ok(_) => Err(malformed("a message that is none")),
            Err(error) => Err(malformed(&error.to_string())),
        },
        4 => read_answer(&frame, true).map(Incoming::PubAck),
        9 => read_suback(&frame),
        13 => Ok(Incoming::PingResp),
        14 => read_answer(&frame, false).map(Incoming::Disconnect),
        kind => Err(malformed(&format!("a packet of kind {kind}"))),
    }
}

/// Splits a packet into its first byte and what follows its length.
fn split(frame: &[u8]) -> Option<(u8, &[u8])> {
    let first = *frame.first()?;
    let end = frame.iter().skip(1).position(|byte| byte & 0x80 == 0)?;
    Some((first, frame.get(end + 2..)?))
}

/// Reads a packet with one reason code; without one it is 0.
fn read_answer(frame: &[u8], has_id: bool) -> Result<Answer, Failure> {
    let short = || malformed("an answer that is too short");
    let (_, mut body) = split(frame).ok_or_else(short)?;
    let id = match (has_id, body.len()) {
        (false, _) => 0,
        (true, 0 | 1) => return Err(short()),
        (true, _) => body.get_u16(),
    };
    let code = body.first().copied().unwrap_or(0);
    Ok(Answer { id, code, words: body.get(1..).and_then(reason_string) })
}

fn read_suback(frame: &[u8]) -> Result<Incoming, Failure> {
    let short = || malformed("an answer that is too short");
    let (_, mut body) = split(frame).ok_or_else(short)?;
    if body.len() < 2 {
        return Err(short());
    }
    let id = body.get_u16();
    let (_, codes) = properties(body).ok_or_else(short)?;
    Ok(Incoming::SubAck { id, codes: codes.to_vec() })
}

/// Splits off the properties at the beginning.
fn properties(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut shift) = (0_usize, 0);
    for (at, byte) in bytes.iter().take(MAX_LENGTH_BYTES).enumerate() {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return bytes.get(at + 1..)?.split_at_checked(length);
        }
    }
    None
}

/// Finds the server's own words among properties. It stops at a property that it does not know.
fn reason_string(bytes: &[u8]) -> Option<String> {
    let (mut list, _) = properties(bytes)?;
    loop {
        let (kind, rest) = list.split_first()?;
        let (value, rest) = text(rest)?;
        list = match *kind {
            REASON_STRING => return std::str::from_utf8(value).ok().map(str::to_owned),
            USER_PROPERTY => text(rest)?.1,
            _ => return None,
        };
    }
}

/// Splits off a text with its length before it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// Encodes a packet of the connection's own behind what waits to be sent.
///
/// # Errors
/// The library cannot encode it, which its caller has to exclude: the connection ends, and no
/// message is the cause.
pub(super) fn write(packet: &Packet, out: &mut BytesMut) -> Result<(), Failure> {
    encode(packet, out)
        .map_err(|error| Failure::ended(format!("MQTT cannot carry the packet: {error}")))
}

/// Encodes a message as [`write`] does.
///
/// # Errors
/// The library cannot encode it: this message never goes.
pub(super) fn write_message(message: Publish, out: &mut BytesMut) -> Result<(), Failure> {
    encode(&Packet::Publish(message), out)
        .map_err(|error| Failure::permanent(format!("MQTT cannot carry the message: {error}")))
}

fn encode(packet: &Packet, out: &mut BytesMut) -> Result<(), String> {
    let before = out.len();
    packet.write(out, None).map(drop).map_err(|error| {
        out.truncate(before);
        error.to_string()
    })
}

/// Gives the topic of a message; the library has checked that it is UTF-8.
pub(crate) fn topic_of(topic: &Bytes) -> String {
    String::from_utf8_lossy(topic).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::failure::FailureClass;
    use proptest::{collection::vec, prelude::*};
    use rumqttc::mqttbytes::{QoS, v5::PublishProperties};

    fn frame(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let mut bytes = frame(&[0xd0, 0x00, 0x40]);
        assert_eq!(next_frame(&mut bytes).expect("legal"), Some(frame(&[0xd0, 0x00])));
        assert_eq!(next_frame(&mut bytes).expect("legal"), None);
        bytes.extend_from_slice(&[0x02, 0x00]);
        assert_eq!(next_frame(&mut bytes).expect("legal"), None);
        bytes.extend_from_slice(&[0x07]);
        assert_eq!(next_frame(&mut bytes).expect("legal"), Some(frame(&[0x40, 0x02, 0, 7])));
        assert!(next_frame(&mut frame(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01])).is_err());
    }

    #[test]
    fn a_confirmation_may_have_a_code_that_the_standard_does_not_list_for_it() {
        let answer = |id, code, words: Option<&str>| {
            Incoming::PubAck(Answer { id, code, words: words.map(str::to_owned) })
        };
        for (bytes, expected) in [
            (&[0x40, 2, 0, 7][..], answer(7, 0, None)),
            (&[0x40, 3, 0, 7, 0x10][..], answer(7, 0x10, None)),
            (&[0x40, 4, 1, 0, 0x95, 0][..], answer(256, 0x95, None)),
            (&[0x40, 9, 0, 7, 0x97, 5, 0x1f, 0, 2, b'n', b'o'][..], answer(7, 0x97, Some("no"))),
            (
                &[0x40, 16, 0, 7, 0x97, 12, 0x26, 0, 1, b'a', 0, 1, b'b', 0x1f, 0, 2, b'n', b'o'][..],
                answer(7, 0x97, Some("no")),
            ),
        ] {
            assert_eq!(read(frame(bytes)).expect("legal"), expected, "{bytes:?}");
        }
        assert!(read(frame(&[0x40, 1, 0])).is_err());
    }

    #[test]
    fn the_end_of_a_connection_and_a_subscription_have_their_codes() {
        let end = read(frame(&[0xe0, 0])).expect("legal");
        assert_eq!(end, Incoming::Disconnect(Answer { id: 0, code: 0, words: None }));
        let end = read(frame(&[0xe0, 2, 0x8e, 0])).expect("legal");
        assert_eq!(end, Incoming::Disconnect(Answer { id: 0, code: 0x8e, words: None }));
        let granted = read(frame(&[0x90, 5, 0, 1, 0, 1, 0x87])).expect("legal");
        assert_eq!(granted, Incoming::SubAck { id: 1, codes: vec![1, 0x87] });
        assert!(read(frame(&[0x10, 0])).is_err(), "no server connects");
    }

    #[test]
    fn a_refused_connection_and_a_server_of_an_older_version_are_told_apart() {
        let refused = |bytes: &[u8]| read_welcome(frame(bytes)).expect_err("refused").text;
        assert!(refused(&[0x20, 3, 0, 0x86, 0]).contains("check user and password"));
        assert!(refused(&[0x20, 2, 0, 1]).contains("MQTT 5 is needed"));
        assert!(refused(&[0x20, 3, 0, 0xc1, 0]).contains("0xc1"));
        assert!(refused(b"HTTP/1.1 400").contains("no MQTT 5"));
        let welcome = read_welcome(frame(&[0x20, 6, 1, 0, 3, 0x21, 0, 20])).expect("accepted");
        assert!(welcome.session_present);
        assert_eq!(welcome.properties.and_then(|p| p.receive_max), Some(20));
    }

    #[test]
    fn a_packet_that_cannot_be_encoded_is_a_failure_of_no_message_unless_it_is_one() {
        // A number has to be there.
        let message = || Publish::new("t", QoS::AtLeastOnce, "x", None);
        let mut out = frame(b"before");
        let packet = Packet::Publish(message());
        let of_connection = write(&packet, &mut out).expect_err("no number");
        assert_eq!(of_connection.class, FailureClass::Unavailable, "{of_connection:?}");
        let of_message = write_message(message(), &mut out).expect_err("no number");
        assert_eq!(of_message.class, FailureClass::Permanent, "{of_message:?}");
        assert_eq!(out, frame(b"before"), "nothing of it is sent");
    }

    proptest! {
        /// No bytes of a server make the reader panic, and what it cannot read is an error.
        #[test]
        fn arbitrary_bytes_are_packets_or_errors(bytes in vec(any::<u8>(), 0..64)) {
            let mut rest = frame(&bytes);
            while let Ok(Some(frame)) = next_frame(&mut rest) {
                let _ = read_welcome(frame.clone());
                let _ = read(frame);
            }
        }

        #[test]
        fn a_message_reads_back_whatever_it_holds(
            topic in "[a-z/]{1,20}",
            payload in vec(any::<u8>(), 0..400),
            list in vec(("[a-z]{1,9}", "\\PC{0,40}"), 0..9),
            media in proptest::option::of("[a-z/+]{1,20}"),
            id in 1..=u16::MAX,
            dup: bool,
        ) {
            let properties = PublishProperties {
                user_properties: list,
                content_type: media,
                ..PublishProperties::default()
            };
            let has_properties = properties != PublishProperties::default();
            let properties = has_properties.then_some(properties);
            let mut sent = Publish::new(topic, QoS::AtLeastOnce, payload, properties);
            (sent.pkid, sent.dup) = (id, dup);
            let mut bytes = BytesMut::new();
            write_message(sent.clone(), &mut bytes).expect("encoded");
            prop_assert_eq!(bytes.len(), sent.size());
            // In two parts, as a network may deliver it.
            let mut arrived = bytes.split_to(bytes.len() / 2);
            prop_assert_eq!(next_frame(&mut arrived).expect("legal"), None);
            arrived.extend_from_slice(&bytes);
            let whole = next_frame(&mut arrived).expect("legal").expect("whole");
            prop_assert_eq!(read(whole).expect("legal"), Incoming::Publish(sent));
        }
    }
}
