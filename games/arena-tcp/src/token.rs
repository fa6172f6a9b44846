//! Players' join tokens, for where no gateway checks them: PASETO v4.public, verified as the documentation of Spawnpoint says.

use pasetors::Public;
use pasetors::keys::AsymmetricPublicKey;
use pasetors::token::UntrustedToken;
use pasetors::version4::{PublicToken, V4};
use serde::Deserialize;

use crate::command::Refusal;

/// The line a client sends first: this word, a space, the token.
pub(crate) const PREAMBLE: &str = "SPAWNPOINT ";
/// Longest such line, bytes; the longest token has about half of it.
pub(crate) const MAX_PREAMBLE: usize = 4 * 1024 + PREAMBLE.len();

/// The keys a token may be signed with: two while the platform rotates them.
#[derive(Debug, Clone)]
pub(crate) struct Keys(Vec<AsymmetricPublicKey<V4>>);

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    sid: String,
    exp: i64,
}

impl Keys {
    /// PASERK texts separated by white space; `None` if there is none or one is not a `k4.public` key.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let keys: Result<Vec<_>, _> = text
            .split_ascii_whitespace()
            .map(AsymmetricPublicKey::try_from)
            .collect();
        keys.ok().filter(|keys| !keys.is_empty()).map(Self)
    }

    /// The player a preamble line speaks for. `now` is Unix seconds; a server that does not know its session trusts nobody.
    pub(crate) fn player(
        &self,
        line: &[u8],
        session_id: Option<&str>,
        now: i64,
    ) -> Result<String, Refusal> {
        let token = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.strip_prefix(PREAMBLE))
            .ok_or(Refusal::TokenRequired)?;
        let token =
            UntrustedToken::<Public, V4>::try_from(token.trim()).map_err(|_| Refusal::BadToken)?;
        let payload = self
            .0
            .iter()
            .find_map(|key| PublicToken::verify(key, &token, None, None).ok())
            .ok_or(Refusal::BadToken)?;
        let claims: Claims =
            serde_json::from_str(payload.payload()).map_err(|_| Refusal::BadToken)?;
        if session_id != Some(claims.sid.as_str()) {
            return Err(Refusal::OtherSession);
        }
        if claims.exp <= now {
            return Err(Refusal::TokenExpired);
        }
        Ok(claims.sub)
    }
}

/// Unix seconds.
pub(crate) fn now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasetors::keys::{AsymmetricKeyPair, Generate};
    use pasetors::paserk::FormatAsPaserk;

    fn pair() -> (AsymmetricKeyPair<V4>, String) {
        let pair = AsymmetricKeyPair::<V4>::generate().unwrap();
        let mut paserk = String::new();
        pair.public.fmt(&mut paserk).unwrap();
        (pair, paserk)
    }

    fn line(pair: &AsymmetricKeyPair<V4>, claims: &str) -> Vec<u8> {
        let token = PublicToken::sign(&pair.secret, claims.as_bytes(), None, None).unwrap();
        format!("{PREAMBLE}{token}").into_bytes()
    }

    #[test]
    fn a_token_is_for_one_session_and_a_time() {
        let ((ours, key), (old, old_key), (foreign, _)) = (pair(), pair(), pair());
        let keys = Keys::parse(&format!("{old_key} {key}")).unwrap();
        let claims = r#"{"sub":"ann 🧂","sid":"s1","fleet":"arena","iat":0,"exp":100}"#;
        let ann = line(&ours, claims);
        assert_eq!(keys.player(&ann, Some("s1"), 99).as_deref(), Ok("ann 🧂"));
        assert!(keys.player(&line(&old, claims), Some("s1"), 99).is_ok());
        assert_eq!(
            keys.player(&ann, Some("s1"), 100),
            Err(Refusal::TokenExpired)
        );
        assert_eq!(
            keys.player(&ann, Some("s2"), 99),
            Err(Refusal::OtherSession)
        );
        assert_eq!(keys.player(&ann, None, 99), Err(Refusal::OtherSession));
        let forged = line(&foreign, claims);
        assert_eq!(keys.player(&forged, Some("s1"), 99), Err(Refusal::BadToken));
        for (text, refusal) in [
            ("GET_STATE", Refusal::TokenRequired),
            ("SPAWNPOINT", Refusal::TokenRequired),
            ("SPAWNPOINT ", Refusal::BadToken),
            ("SPAWNPOINT v4.public.x", Refusal::BadToken),
        ] {
            assert_eq!(keys.player(text.as_bytes(), Some("s1"), 0), Err(refusal));
        }
        assert!(Keys::parse(" ").is_none() && Keys::parse("k4.secret.x").is_none());
    }
}
