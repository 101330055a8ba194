//! What must not be shown or left behind of messages that carry keys, tokens or values.

use std::fmt;

use zeroize::Zeroize;

use crate::v1::{Config, Grant, Header, Join, Preview, RevokeShares, Set, SetKey, Share, Value, revoke_shares::Which};

macro_rules! hide {
    ($($message:ident),*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        }
    )*};
}

hide!(Config, Grant, Header, Join, Preview, RevokeShares, Set, SetKey, Share, Value, Which);

impl Drop for Header {
    fn drop(&mut self) {
        self.content_key.zeroize();
        self.token.zeroize();
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.record_key.zeroize();
        self.content_key.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{
        Config, Grant, Header, Join, Preview, Request, RevokeShares, Set, SetKey, Share, Shares, request::Command,
        revoke_shares::Which,
    };

    fn grant(secret: &[u8]) -> Grant {
        let mut grant = Grant::default();
        (grant.record_key, grant.content_key) = (secret.into(), secret.into());
        grant
    }

    fn share(secret: &[u8]) -> Share {
        let url = String::from_utf8(secret.into()).unwrap();
        Share { token: secret.into(), url, ..Share::default() }
    }

    #[test]
    fn no_message_shows_a_key_or_a_value() {
        let secret = vec![b'S'; 32];
        let shown = [
            format!(
                "{:?}",
                Header { name: "N".into(), content_key: secret.clone(), token: secret.clone(), reads: 0, pin: false }
            ),
            format!("{:?}", grant(&secret)),
            format!("{:?}", RevokeShares { which: Some(Which::Token(secret.clone())) }),
            format!("{:?}", Shares { shares: vec![share(&secret)], last: true }),
            format!("{:?}", SetKey { key: secret.clone(), ..SetKey::default() }),
            format!("{:?}", Join { key: secret.clone(), ..Join::default() }),
            format!("{:?}", Preview { key: secret.clone(), ..Preview::default() }),
            format!("{:?}", Config { key: secret.clone(), ..Config::default() }),
            format!(
                "{:?}",
                Request {
                    command: Some(Command::Set(Set { value: Some(secret), ..Set::default() })),
                    ..Request::default()
                }
            ),
        ];
        for text in shown {
            assert!(!text.contains("83") && !text.contains("SS"), "{text}");
        }
    }
}
