//! Tokens, signed with a key that is used for nothing else.

use std::sync::LazyLock;

use spawnpoint_core::{FleetName, InstanceId, PlayerId, SessionId};
use spawnpoint_wire::token::{InstanceClaims, Keyring, SigningKey, TokenClaims};

use super::{ID, Seeds};

/// Keys of these runs, which open nothing.
const KEY: &str = "k4.secret.xnxkApTgSSkHQJeI48Iz5z9dTYzUwZ8oMUlea08hWOHVeoMs9PUUFYxT1vNMrb1qqrTXN6an1nJ45dAWIm0R7g";
const OTHER_KEY: &str = "k4.secret.UZQp2EzvcQikT49O5TdMlI0_ZUiV5ghQCiWUqdJH51Ae0kbgTT2E_vr7gOsq5kZmW8cGtvhhqWus_PjtTZzfuw";

/// Good tokens and who knows them.
pub(crate) struct Signed {
    /// The one key that is valid.
    pub(crate) ring: Keyring,
    /// As if the key had been rotated.
    pub(crate) other_ring: Keyring,
    pub(crate) claims: TokenClaims,
    pub(crate) player: String,
    pub(crate) instance_claims: InstanceClaims,
    pub(crate) instance: String,
    /// The player's token, signed with the other key.
    pub(crate) of_another_key: String,
}

pub(crate) static SIGNED: LazyLock<Signed> = LazyLock::new(|| match sign() {
    Some(signed) => signed,
    None => unreachable!("the keys of these runs are keys"),
});

fn sign() -> Option<Signed> {
    let key = SigningKey::from_paserk(KEY).ok()?;
    let other = SigningKey::from_paserk(OTHER_KEY).ok()?;
    let fleet: FleetName = "spice".parse().ok()?;
    let claims = TokenClaims {
        sub: "ann \u{1f9c2}".parse::<PlayerId>().ok()?,
        sid: ID.parse::<SessionId>().ok()?,
        fleet: fleet.clone(),
        iat: 1_790_000_000,
        exp: 1_790_003_600,
    };
    let instance_claims = InstanceClaims {
        iid: ID.parse::<InstanceId>().ok()?,
        fleet,
    };
    Some(Signed {
        ring: Keyring::new(vec![key.public().clone()]),
        other_ring: Keyring::new(vec![other.public().clone()]),
        player: key.sign(&claims).ok()?,
        instance: key.sign_instance(&instance_claims).ok()?,
        of_another_key: other.sign(&claims).ok()?,
        claims,
        instance_claims,
    })
}

pub(crate) fn tokens() -> Seeds {
    let signed = &*SIGNED;
    let unsigned = signed.player.rsplit_once('.').map_or("", |(t, _)| t);
    let text = |name, text: &str| (name, text.as_bytes().to_vec());
    vec![
        text("player", &signed.player),
        text("instance", &signed.instance),
        text("other-key", &signed.of_another_key),
        text("no-footer", unsigned),
        text("local", "v4.local.AAAA"),
        text("secret-key", KEY),
        text("public-key", &signed.ring.to_env()),
        ("one-change", vec![0, 40, b'A']),
        ("last-change", vec![1, 0x20, b'_', 0, 12, b'-']),
    ]
}
