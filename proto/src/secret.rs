//! What must not be shown or left behind of messages that carry keys or values.

use std::fmt;

use zeroize::Zeroize;

use crate::v1::{Config, Header, Join, Preview, Set, SetKey, Value};

macro_rules! hide {
    ($($message:ident),*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        }
    )*};
}

hide!(Config, Header, Join, Preview, Set, SetKey, Value);

impl Drop for Header {
    fn drop(&mut self) {
        self.content_key.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{Config, Header, Join, Preview, Request, Set, SetKey, request::Command};

    #[test]
    fn no_message_shows_a_key_or_a_value() {
        let secret = vec![b'S'; 32];
        let shown = [
            format!("{:?}", Header { name: "N".into(), content_key: secret.clone() }),
            format!("{:?}", SetKey { key: secret.clone() }),
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
