//! Logins by name and password, or by a token, as the header `authorization` has them.

use super::{Grant, Role};
use axum::http::{HeaderValue, header, request::Parts};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Fewest characters of a password: what a person can keep, and a guesser on the network cannot
/// try.
const SHORTEST_PASSWORD: usize = 12;
/// Fewest characters of a token: a program reads it from a file, so that it costs nothing.
const SHORTEST_TOKEN: usize = 20;

/// How a login is written in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scheme {
    Basic,
    Bearer,
}

/// A login. Its secret is not kept: a digest has the same length for each, so that a comparison
/// takes the same time.
#[derive(Clone)]
pub(super) struct Login {
    scheme: Scheme,
    digest: [u8; 32],
    secret_length: usize,
    pub(super) grant: Grant,
}

/// What is wrong with the logins of a dashboard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AccessFault {
    /// There is no login.
    #[error("no login is configured, so that nobody gets in: add one")]
    NoLogin,
    /// A name cannot be one.
    #[error("the login {0:?} has a name that is empty, or has a colon or a control character")]
    Name(String),
    /// A name is given twice.
    #[error("two logins are named {0:?}: the audit could not tell who acted")]
    Repeated(String),
    /// A password or token is too short.
    #[error("the secret of the login {who:?} has fewer than {shortest} characters")]
    Short {
        /// The login.
        who: String,
        /// The fewest characters that are allowed.
        shortest: usize,
    },
}

impl Scheme {
    const fn shortest(self) -> usize {
        match self {
            Self::Basic => SHORTEST_PASSWORD,
            Self::Bearer => SHORTEST_TOKEN,
        }
    }

    const fn challenge(self) -> HeaderValue {
        match self {
            Self::Basic => HeaderValue::from_static("Basic realm=\"outbox\", charset=\"UTF-8\""),
            Self::Bearer => HeaderValue::from_static("Bearer realm=\"outbox\""),
        }
    }
}

impl Login {
    pub(super) fn basic(who: String, password: &str, may: Role) -> Self {
        let digest = Sha256::digest(format!("{who}:{password}")).into();
        let secret_length = password.chars().count();
        Self { scheme: Scheme::Basic, digest, secret_length, grant: Grant { who, may } }
    }

    pub(super) fn bearer(who: String, token: &str, may: Role) -> Self {
        let secret_length = token.chars().count();
        let digest = Sha256::digest(token).into();
        Self { scheme: Scheme::Bearer, digest, secret_length, grant: Grant { who, may } }
    }
}

/// Says all that is wrong with logins.
pub(super) fn faults(logins: &[Login]) -> Vec<AccessFault> {
    let mut names = BTreeSet::new();
    let mut faults = Vec::new();
    for Login { scheme, secret_length, grant, .. } in logins {
        let who = &grant.who;
        if who.is_empty() || who.contains(|c: char| c == ':' || c.is_control()) {
            faults.push(AccessFault::Name(who.clone()));
        }
        if !names.insert(who) {
            faults.push(AccessFault::Repeated(who.clone()));
        }
        let shortest = scheme.shortest();
        if *secret_length < shortest {
            faults.push(AccessFault::Short { who: who.clone(), shortest });
        }
    }
    faults
}

/// Gives what a browser is asked for, for each kind of login that there is.
pub(super) fn challenges(logins: &[Login]) -> Vec<HeaderValue> {
    let schemes: BTreeSet<Scheme> = logins.iter().map(|login| login.scheme).collect();
    schemes.into_iter().map(Scheme::challenge).collect()
}

/// What a request gives as its login.
pub(super) struct Given {
    /// `None` where it cannot be read: then it is no login.
    scheme: Option<Scheme>,
    secret: Vec<u8>,
}

impl Given {
    /// Gives what the header says; `None` without one.
    pub(super) fn of(parts: &Parts) -> Option<Self> {
        let value = parts.headers.get(header::AUTHORIZATION)?;
        let read = value.to_str().ok().and_then(Self::read);
        Some(read.unwrap_or(Self { scheme: None, secret: Vec::new() }))
    }

    fn read(value: &str) -> Option<Self> {
        let (scheme, value) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("basic") {
            let secret = BASE64_STANDARD.decode(value.trim()).ok()?;
            return Some(Self { scheme: Some(Scheme::Basic), secret });
        }
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        let secret = value.trim().as_bytes().to_vec();
        is_bearer.then_some(Self { scheme: Some(Scheme::Bearer), secret })
    }

    /// Gives the name that it claims. A token has none, and is too long to be guessed.
    pub(super) fn name(&self) -> Option<&[u8]> {
        let is_basic = self.scheme == Some(Scheme::Basic);
        self.secret.split(|byte| *byte == b':').next().filter(|_| is_basic)
    }

    /// Tells whether a login has the name that it claims.
    pub(super) fn names_one_of(&self, logins: &[Login]) -> bool {
        let is_it = |login: &Login| self.name() == Some(login.grant.who.as_bytes());
        logins.iter().any(|login| login.scheme == Scheme::Basic && is_it(login))
    }

    /// Finds the login that it is. It is compared with every login, whichever fits, so that the
    /// time says nothing.
    pub(super) fn find<'a>(&self, logins: &'a [Login]) -> Option<&'a Login> {
        let digest: [u8; 32] = Sha256::digest(&self.secret).into();
        let mut fits = u64::MAX;
        for (number, login) in (0_u64..).zip(logins) {
            let is_scheme = Choice::from(u8::from(Some(login.scheme) == self.scheme));
            fits.conditional_assign(&number, login.digest.ct_eq(&digest) & is_scheme);
        }
        usize::try_from(fits).ok().and_then(|fits| logins.get(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_that_are_not_safe_are_told_with_all_their_faults() {
        let logins = [
            Login::basic("a:b".into(), "correct horse battery", Role::Reader),
            Login::basic("ann".into(), "short", Role::Reader),
            Login::basic("ann".into(), "correct horse battery", Role::Reader),
            Login::bearer(String::new(), "token", Role::Reader),
        ];
        assert_eq!(
            faults(&logins),
            [
                AccessFault::Name("a:b".into()),
                AccessFault::Short { who: "ann".into(), shortest: SHORTEST_PASSWORD },
                AccessFault::Repeated("ann".into()),
                AccessFault::Name(String::new()),
                AccessFault::Short { who: String::new(), shortest: SHORTEST_TOKEN },
            ]
        );
    }
}
