//! Join tokens and instances' tokens, and the keys they are signed with.

use crate::seeds::tokens::{SIGNED, Signed};
use spawnpoint_wire::token::{MAX_TOKEN, SigningKey, TokenError, VerifyingKey};

pub(super) fn check(bytes: &[u8]) {
    let signed = &*SIGNED;
    let text = String::from_utf8_lossy(bytes);
    verify(signed, &text);
    // The same bytes as changes to good tokens: place, and what is changed there.
    verify(signed, &changed(&signed.player, bytes));
    verify(signed, &changed(&signed.instance, bytes));
    keys(&text);
}

/// Accepted is what was signed, and nothing else; an instance's token opens no game and a player's is no instance's.
fn verify(signed: &Signed, token: &str) {
    match signed.ring.verify_signature(token) {
        Ok(claims) => {
            assert_eq!(token, signed.player);
            assert_eq!(claims, signed.claims);
        }
        Err(e) => refused(token, &signed.player, e),
    }
    match signed.ring.verify_instance(token) {
        Ok(claims) => {
            assert_eq!(token, signed.instance);
            assert_eq!(claims, signed.instance_claims);
        }
        Err(e) => refused(token, &signed.instance, e),
    }
    let late = signed.claims.exp;
    assert!(signed.ring.verify(token, late).is_err());
    assert_eq!(
        signed.ring.verify(token, late - 1).is_ok(),
        token == signed.player
    );
    // Good, but of a key that is not valid here any more.
    if signed.other_ring.verify_signature(token).is_ok() {
        assert_eq!(token, signed.of_another_key);
    }
}

fn refused(token: &str, good: &str, error: TokenError) {
    assert_ne!(token, good);
    assert!(matches!(
        error,
        TokenError::Invalid | TokenError::UnknownKey
    ));
    if token.len() > MAX_TOKEN {
        assert_eq!(error, TokenError::Invalid);
    }
}

fn changed(token: &str, changes: &[u8]) -> String {
    let mut token = token.as_bytes().to_vec();
    for change in changes.chunks_exact(3).take(8) {
        let &[high, low, to] = change else { continue };
        let length = token.len().max(1);
        let at = usize::from(u16::from_be_bytes([high, low])) % length;
        if let Some(byte) = token.get_mut(at) {
            *byte = to;
        }
    }
    String::from_utf8_lossy(&token).into_owned()
}

fn keys(text: &str) {
    if let Ok(key) = VerifyingKey::from_paserk(text) {
        assert_eq!(key.paserk(), text.trim());
        assert!(key.kid().starts_with("k4.pid."));
    }
    if let Ok(key) = SigningKey::from_paserk(text) {
        assert_eq!(key.to_paserk().as_deref(), Ok(text.trim()));
    }
}
