//! What is refused, and that all else is written as serde_json writes it.

use super::{JsonError, write};
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use std::collections::BTreeMap;

fn of<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, JsonError> {
    write(|out| value.serialize(out))
}

fn refused<T: Serialize>(value: &T) -> String {
    of(value).expect_err("it is refused").to_string()
}

#[derive(Serialize)]
struct Line {
    price: f64,
    rates: BTreeMap<&'static str, f32>,
}

#[derive(Serialize)]
struct Order {
    lines: Vec<Line>,
    #[serde(flatten)]
    more: More,
}

#[test]
fn a_field_that_is_there_twice_is_refused_and_a_key_of_another_object_is_not() {
    #[derive(Serialize)]
    struct Flat {
        id: u8,
        inner: BTreeMap<String, u8>,
        #[serde(flatten)]
        more: BTreeMap<String, u8>,
    }
    let flat = |key: &str| {
        let more: BTreeMap<String, u8> =
            (0..40).map(|n| (format!("k{n}"), n)).chain([(key.to_owned(), 1)]).collect();
        Flat { id: 1, inner: BTreeMap::from([("id".to_owned(), 1), ("k7".to_owned(), 2)]), more }
    };
    for key in ["id", "inner"] {
        assert_eq!(
            refused(&flat(key)),
            "`*` is there twice, so that it could not be read back: a key of a flattened map is the name of another field"
        );
    }
    assert_eq!(of(&flat("other")).unwrap(), serde_json::to_vec(&flat("other")).unwrap());
}

#[derive(Serialize)]
struct More {
    weight: f64,
    size: (f64, f64),
    kind: Kind,
}

#[derive(Serialize)]
enum Kind {
    Plain,
    Heavy(f64),
    Large(u8, f64),
    Odd { by: Option<f64> },
}

fn order() -> Order {
    let line = |price| Line { price, rates: BTreeMap::from([("eu", 0.5)]) };
    let more = More { weight: 1.0, size: (2.0, 3.0), kind: Kind::Plain };
    Order { lines: vec![line(1.5), line(2.5)], more }
}

#[test]
fn a_number_that_json_has_not_is_refused_with_the_path_of_its_field() {
    type Spoil = fn(&mut Order);
    let cases: [(Spoil, &str); 9] = [
        (|o| o.lines[1].price = f64::NAN, "`lines[1].price` is NaN"),
        (|o| o.lines[0].price = f64::INFINITY, "`lines[0].price` is infinity"),
        (|o| o.lines[0].price = f64::NEG_INFINITY, "`lines[0].price` is -infinity"),
        (|o| _ = o.lines[0].rates.insert("secret", f32::NAN), "`lines[0].rates.*` is NaN"),
        (|o| o.more.weight = f64::NAN, "`weight` is NaN"),
        (|o| o.more.size.1 = f64::NAN, "`size[1]` is NaN"),
        (|o| o.more.kind = Kind::Heavy(f64::NAN), "`kind.Heavy` is NaN"),
        (|o| o.more.kind = Kind::Large(1, f64::NAN), "`kind[1]` is NaN"),
        (|o| o.more.kind = Kind::Odd { by: Some(f64::NAN) }, "`kind.by` is NaN"),
    ];
    for (spoil, said) in cases {
        let mut order = order();
        spoil(&mut order);
        let advice = "use an `Option` that is `None`, or text, where there is none";
        assert_eq!(refused(&order), format!("{said}, for which JSON has no number: {advice}"));
    }
    assert!(refused(&f64::NAN).starts_with("the value is NaN"));
}

#[test]
fn what_is_written_is_byte_for_byte_what_serde_json_writes() {
    assert_eq!(of(&order()).unwrap(), serde_json::to_vec(&order()).unwrap());
    let raw: &serde_json::value::RawValue =
        serde_json::from_str(r#"{"a" : [1.50, null]}"#).unwrap();
    let odd = (
        i128::MIN,
        u128::MAX,
        f64::MIN_POSITIVE,
        -0.0_f32,
        "ß\u{1}",
        [0_u8, 255],
        Some(()),
        raw,
        'x',
    );
    assert_eq!(of(&odd).unwrap(), serde_json::to_vec(&odd).unwrap());
    let keys = (
        BTreeMap::from([(true, 1)]),
        BTreeMap::from([(-1_i64, 1)]),
        BTreeMap::from([('k', Kind::Plain)]),
    );
    assert_eq!(of(&keys).unwrap(), serde_json::to_vec(&keys).unwrap());
}

#[test]
fn the_largest_integers_come_back_whole() {
    let written = of(&(i128::MIN, u128::MAX, i64::MIN, u64::MAX)).unwrap();
    let read: (i128, u128, i64, u64) = serde_json::from_slice(&written).unwrap();
    assert_eq!(read, (i128::MIN, u128::MAX, i64::MIN, u64::MAX));
}

#[derive(Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Link>>,
}

#[derive(Serialize, Deserialize)]
enum Link {
    One(Chain),
    Two { chain: Chain },
    Three(u8, Chain),
}

fn chain(links: u8, kind: u8) -> Chain {
    (0..links).fold(Chain { next: None }, |chain, _| {
        let link = match kind {
            0 => Link::One(chain),
            1 => Link::Two { chain },
            _ => Link::Three(1, chain),
        };
        Chain { next: Some(Box::new(link)) }
    })
}

#[test]
fn what_could_not_be_read_back_for_its_depth_is_refused_and_nothing_else_is() {
    for kind in 0..3 {
        for links in 30..70 {
            let value = chain(links, kind);
            let text = serde_json::to_vec(&value).unwrap();
            let reads = serde_json::from_slice::<Chain>(&text).is_ok();
            assert_eq!(of(&value).is_ok(), reads, "{links} links of kind {kind}");
        }
        let said = refused(&chain(70, kind));
        assert!(
            said.starts_with("`next") && said.contains("is nested deeper than the 127 levels"),
            "{said}"
        );
        assert!(said.len() < 300, "{said}");
    }
}

#[test]
fn an_error_of_the_value_s_own_is_told_with_its_field_and_stored_without_its_text() {
    struct Secret;
    impl Serialize for Secret {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("the card 4111 is stolen"))
        }
    }
    let error = of(&BTreeMap::from([("a", vec![Secret])])).unwrap_err();
    assert_eq!(error.to_string(), "`*[0]` cannot be written: the card 4111 is stolen");
    assert_eq!(error.without_values(), "`*[0]` cannot be written");
    let error = of(&[BTreeMap::from([((1, 2), 3)])]).unwrap_err();
    assert_eq!(error.without_values(), "`[0].*` cannot be written: key must be a string");
}
