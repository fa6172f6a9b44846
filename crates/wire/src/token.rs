//! Join tokens: PASETO v4.public, bound to one session and one player, with the key id in the footer.
//!
//! The token authorises; the route table decides where to. Gateways and games hold public keys only.

use pasetors::Public;
use pasetors::keys::{AsymmetricKeyPair, AsymmetricPublicKey, AsymmetricSecretKey, Generate};
use pasetors::paserk::{FormatAsPaserk, Id};
use pasetors::token::UntrustedToken;
use pasetors::version4::{PublicToken, V4};
use serde::{Deserialize, Serialize};
use spawnpoint_core::{FleetName, InstanceId, PlayerId, SessionId};

use crate::text;

/// Longest token read, bytes: twice what the longest player id needs.
pub const MAX_TOKEN: usize = 4 * 1024;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenClaims {
    /// The player.
    #[serde(with = "text")]
    pub sub: PlayerId,
    /// The session.
    #[serde(with = "text")]
    pub sid: SessionId,
    /// Its fleet.
    #[serde(with = "text")]
    pub fleet: FleetName,
    /// Issued, Unix seconds.
    pub iat: i64,
    /// Expires, Unix seconds.
    pub exp: i64,
}

/// What an instance's own token says: which instance it is, for the SDK listener. It never expires; it dies with its instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceClaims {
    /// The instance.
    #[serde(with = "text")]
    pub iid: InstanceId,
    /// Its fleet.
    #[serde(with = "text")]
    pub fleet: FleetName,
}

#[derive(Serialize, Deserialize)]
struct Footer {
    kid: String,
}

/// Why a token is not accepted. None of these says anything about whether the session exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a v4.public token of ours.
    #[error("the token is not one of this server's")]
    Invalid,
    /// Signed by a key that is not (or no longer) valid here.
    #[error("the token was signed by a key that is not valid here; ask for a new one")]
    UnknownKey,
    /// Too old.
    #[error("the token has expired; renew it")]
    Expired,
}

/// The key that signs, with its id.
pub struct SigningKey {
    secret: AsymmetricSecretKey<V4>,
    public: VerifyingKey,
}

/// A public key, with its id.
#[derive(Clone, Debug)]
pub struct VerifyingKey {
    key: AsymmetricPublicKey<V4>,
    kid: String,
    paserk: String,
}

/// Why a key text cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PASERK k4.{0} key")]
pub struct KeyError(&'static str);

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = AsymmetricKeyPair::<V4>::generate().map_err(|_| KeyError("secret"))?;
        Self::from_pair(pair.secret, pair.public)
    }

    /// The key of this PASERK (`k4.secret...`).
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_paserk(text: &str) -> Result<Self, KeyError> {
        let secret =
            AsymmetricSecretKey::<V4>::try_from(text.trim()).map_err(|_| KeyError("secret"))?;
        let public =
            AsymmetricPublicKey::<V4>::try_from(&secret).map_err(|_| KeyError("secret"))?;
        Self::from_pair(secret, public)
    }

    fn from_pair(
        secret: AsymmetricSecretKey<V4>,
        public: AsymmetricPublicKey<V4>,
    ) -> Result<Self, KeyError> {
        Ok(Self {
            secret,
            public: VerifyingKey::from_key(public)?,
        })
    }

    /// The secret as PASERK. For the key file only.
    ///
    /// # Errors
    /// When it cannot be formatted.
    pub fn to_paserk(&self) -> Result<String, KeyError> {
        let mut text = String::new();
        self.secret.fmt(&mut text).map_err(|_| KeyError("secret"))?;
        Ok(text)
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// A signed token.
    ///
    /// # Errors
    /// When the claims cannot be encoded.
    pub fn sign(&self, claims: &TokenClaims) -> Result<String, TokenError> {
        self.sign_any(claims)
    }

    /// A signed token for an instance.
    ///
    /// # Errors
    /// When the claims cannot be encoded.
    pub fn sign_instance(&self, claims: &InstanceClaims) -> Result<String, TokenError> {
        self.sign_any(claims)
    }

    fn sign_any<T: Serialize>(&self, claims: &T) -> Result<String, TokenError> {
        let payload = serde_json::to_vec(claims).map_err(|_| TokenError::Invalid)?;
        let footer = serde_json::to_vec(&Footer {
            kid: self.public.kid.clone(),
        })
        .map_err(|_| TokenError::Invalid)?;
        PublicToken::sign(&self.secret, &payload, Some(&footer), None)
            .map_err(|_| TokenError::Invalid)
    }
}

impl VerifyingKey {
    fn from_key(key: AsymmetricPublicKey<V4>) -> Result<Self, KeyError> {
        let mut paserk = String::new();
        key.fmt(&mut paserk).map_err(|_| KeyError("public"))?;
        let mut kid = String::new();
        Id::from(&key)
            .fmt(&mut kid)
            .map_err(|_| KeyError("public"))?;
        Ok(Self { key, kid, paserk })
    }

    /// The key of this PASERK (`k4.public...`).
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_paserk(text: &str) -> Result<Self, KeyError> {
        Self::from_key(
            AsymmetricPublicKey::<V4>::try_from(text.trim()).map_err(|_| KeyError("public"))?,
        )
    }

    /// `k4.public...`, as games get it in `SPAWNPOINT_PUBLIC_KEYS`.
    #[must_use]
    pub fn paserk(&self) -> &str {
        &self.paserk
    }

    /// `k4.pid...`.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }
}

/// The public keys that are valid now: usually one, two while rotating.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<VerifyingKey>,
}

impl Keyring {
    /// A ring of these.
    #[must_use]
    pub const fn new(keys: Vec<VerifyingKey>) -> Self {
        Self { keys }
    }

    /// Space-separated PASERK, as games get it.
    #[must_use]
    pub fn to_env(&self) -> String {
        self.keys
            .iter()
            .map(VerifyingKey::paserk)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Checks a token. `now` is Unix seconds.
    ///
    /// # Errors
    /// [`TokenError`]; never says whether the session exists.
    pub fn verify(&self, token: &str, now: i64) -> Result<TokenClaims, TokenError> {
        let claims = self.verify_signature(token)?;
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    /// Checks the signature only: for renewing a token that has just expired.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] or [`TokenError::UnknownKey`].
    pub fn verify_signature(&self, token: &str) -> Result<TokenClaims, TokenError> {
        self.verify_any(token)
    }

    /// Checks an instance's token.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] or [`TokenError::UnknownKey`]; a player's token is invalid here and the other way round.
    pub fn verify_instance(&self, token: &str) -> Result<InstanceClaims, TokenError> {
        self.verify_any(token)
    }

    fn verify_any<T: serde::de::DeserializeOwned>(&self, token: &str) -> Result<T, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Invalid);
        }
        let untrusted =
            UntrustedToken::<Public, V4>::try_from(token).map_err(|_| TokenError::Invalid)?;
        let footer: Footer = serde_json::from_slice(untrusted.untrusted_footer())
            .map_err(|_| TokenError::Invalid)?;
        let key = self
            .keys
            .iter()
            .find(|k| k.kid == footer.kid)
            .ok_or(TokenError::UnknownKey)?;
        let trusted = PublicToken::verify(&key.key, &untrusted, None, None)
            .map_err(|_| TokenError::Invalid)?;
        serde_json::from_str(trusted.payload()).map_err(|_| TokenError::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> TokenClaims {
        TokenClaims {
            sub: "user \u{1f9c2}".parse().unwrap(),
            sid: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            fleet: "spice".parse().unwrap(),
            iat: 1,
            exp,
        }
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let key = SigningKey::generate().unwrap();
        let ring = Keyring::new(vec![key.public().clone()]);
        let token = key.sign(&claims(100)).unwrap();
        assert!(token.starts_with("v4.public."));
        assert_eq!(ring.verify(&token, 99), Ok(claims(100)));
        assert_eq!(ring.verify(&token, 100), Err(TokenError::Expired));
        assert_eq!(ring.verify_signature(&token), Ok(claims(100)));
    }

    #[test]
    fn a_players_token_is_no_instances_token() {
        let key = SigningKey::generate().unwrap();
        let ring = Keyring::new(vec![key.public().clone()]);
        let own = InstanceClaims {
            iid: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            fleet: "spice".parse().unwrap(),
        };
        let token = key.sign_instance(&own).unwrap();
        assert_eq!(ring.verify_instance(&token), Ok(own));
        assert_eq!(ring.verify(&token, 0), Err(TokenError::Invalid));
        assert_eq!(
            ring.verify_instance(&key.sign(&claims(9)).unwrap()),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn two_keys_are_valid_while_rotating_and_others_are_not() {
        let (old, new, foreign) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let ring = Keyring::new(vec![new.public().clone(), old.public().clone()]);
        assert!(ring.verify(&old.sign(&claims(9)).unwrap(), 1).is_ok());
        assert!(ring.verify(&new.sign(&claims(9)).unwrap(), 1).is_ok());
        assert_eq!(
            ring.verify(&foreign.sign(&claims(9)).unwrap(), 1),
            Err(TokenError::UnknownKey)
        );
    }

    #[test]
    fn a_changed_token_is_refused() {
        let key = SigningKey::generate().unwrap();
        let ring = Keyring::new(vec![key.public().clone()]);
        let token = key.sign(&claims(100)).unwrap();
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(
                changed == token || ring.verify(&changed, 1).is_err(),
                "byte {i}"
            );
        }
        for bad in [
            "",
            "v4.public.",
            "v4.local.AAAA",
            "a.b.c.d",
            &"x".repeat(MAX_TOKEN + 1),
        ] {
            assert_eq!(ring.verify(bad, 1), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn keys_survive_being_written_down() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_paserk(&key.to_paserk().unwrap()).unwrap();
        assert_eq!(again.public().kid(), key.public().kid());
        assert!(key.public().kid().starts_with("k4.pid."));
        let public = VerifyingKey::from_paserk(key.public().paserk()).unwrap();
        assert_eq!(public.kid(), key.public().kid());
        assert!(SigningKey::from_paserk("k4.secret.nonsense").is_err());
    }
}
