//! Which of many inputs are worth committing: those that cover most, in as few files as there is room for. Pure.
//!
//! The engine's own merge keeps every input that covers something new, smallest first. Cut off at a hundred files that would leave out the
//! large ones, which alone reach what is deep. So the merge is only asked what each input covers (its control file says so), and the choice is
//! made here, greedily: next the one that adds most to what is covered, or most for its length.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// An input and what it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Covering {
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) length: u64,
    /// The engine's numbers for it.
    pub(super) features: Vec<u64>,
}

/// How much room there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) files: usize,
    pub(super) bytes: u64,
}

/// Reads the control file that `-set_cover_merge=1 -merge_control_file=...` leaves: two counts, the names, then for each input
/// `STARTED <index> <length>`, `FT <index> <features>` and `COV ...`. Inputs without `FT` broke the run and are left out.
pub(super) fn covering(control: &str) -> Result<Vec<Covering>> {
    let mut lines = control.lines();
    let mut count = || lines.next().and_then(|l| l.trim().parse::<usize>().ok());
    let (all, _first) = (count(), count());
    let all = all.context("the merge's control file does not begin with a count")?;
    let names: Vec<&str> = lines.by_ref().take(all).collect();
    if names.len() != all {
        bail!(
            "the merge's control file names {} of {all} inputs",
            names.len()
        );
    }
    let mut out: Vec<Covering> = Vec::new();
    let mut started = None;
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next();
        let mut numbers = words.map(str::parse::<u64>);
        let index = numbers.next().and_then(Result::ok);
        let index = index.and_then(|n| usize::try_from(n).ok());
        let (Some(kind), Some(index)) = (kind, index) else {
            bail!("the merge's control file says {line:?}");
        };
        match kind {
            "STARTED" => {
                let length = numbers.next().and_then(Result::ok);
                started = length.map(|length| (index, length));
            }
            "FT" => {
                let Some((_, length)) = started.filter(|(of, _)| *of == index) else {
                    bail!(
                        "the merge's control file has what input {index} covers in the wrong place"
                    );
                };
                let name = names.get(index).context("an input without a name")?;
                out.push(Covering {
                    path: PathBuf::from(name),
                    length,
                    features: numbers.collect::<Result<_, _>>()?,
                });
            }
            _ => {}
        }
    }
    Ok(out)
}

/// The inputs to keep beside those that are kept anyway, best first: each adds something to what all before it cover. Next comes the one that
/// adds most, or where room is short of bytes the one that adds most for its length: whichever way covers more in the end.
pub(super) fn choose(inputs: &[Covering], anyway: &[Covering], room: Room) -> Vec<PathBuf> {
    let known: HashSet<u64> = anyway
        .iter()
        .flat_map(|c| c.features.iter().copied())
        .collect();
    let new = |c: &Covering| -> Vec<u64> {
        let all = c.features.iter().copied();
        all.filter(|f| !known.contains(f)).collect()
    };
    // With what each of them would still add. The same choice from the same inputs, in whatever order they were found; of two that are as
    // good the smaller one.
    let mut left: Vec<(&Covering, Vec<u64>)> = inputs.iter().map(|c| (c, new(c))).collect();
    left.sort_by(|(a, _), (b, _)| (a.length, &a.path).cmp(&(b.length, &b.path)));
    let most = greedy(left.clone(), room, |adds, _| (adds, 1));
    let densest = greedy(left, room, |adds, length| (adds, length.max(1)));
    let (_, chosen) = if densest.0 > most.0 { densest } else { most };
    chosen
}

/// How much is covered in the end, and by which. `worth`: a fraction, the greater the sooner.
fn greedy(
    mut left: Vec<(&Covering, Vec<u64>)>,
    mut room: Room,
    worth: impl Fn(u64, u64) -> (u64, u64),
) -> (u64, Vec<PathBuf>) {
    let mut covered = 0;
    let mut chosen = Vec::new();
    while room.files > 0 {
        left.retain(|(c, adds)| !adds.is_empty() && c.length <= room.bytes);
        let of = |(c, adds): &(&Covering, Vec<u64>)| worth(adds.len() as u64, c.length);
        let better = |(n, d): (u64, u64), (than_n, than_d): (u64, u64)| {
            u128::from(n) * u128::from(than_d) > u128::from(than_n) * u128::from(d)
        };
        let mut best = None;
        for (at, one) in left.iter().enumerate() {
            if best.is_none_or(|(_, than)| better(of(one), than)) {
                best = Some((at, of(one)));
            }
        }
        let Some((at, _)) = best else {
            break;
        };
        let (next, added) = left.remove(at);
        covered += added.len() as u64;
        let added: HashSet<u64> = added.into_iter().collect();
        for (_, adds) in &mut left {
            adds.retain(|f| !added.contains(f));
        }
        room.files -= 1;
        room.bytes -= next.length;
        chosen.push(next.path.clone());
    }
    (covered, chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, length: u64, features: impl IntoIterator<Item = u64>) -> Covering {
        Covering {
            path: name.into(),
            length,
            features: features.into_iter().collect(),
        }
    }

    const ROOM: Room = Room {
        files: 100,
        bytes: 200 * 1024,
    };

    fn names(chosen: &[PathBuf]) -> Vec<&str> {
        chosen.iter().filter_map(|p| p.to_str()).collect()
    }

    #[test]
    fn the_control_file_says_what_each_input_covers() {
        let control = "3\n0\na/one\na/two\nb/three\nSTARTED 0 12\nFT 0 1 4 6\nCOV 0 7 8\nSTARTED 1 45\nSTARTED 2 46\nFT 2 8 9\nCOV 2\n";
        let read = covering(control).unwrap();
        assert_eq!(
            read,
            [input("a/one", 12, [1, 4, 6]), input("b/three", 46, [8, 9])],
            "the second one broke the run"
        );
        for broken in [
            "",
            "x\n0\n",
            "2\n0\none\n",
            "1\n0\none\nFT 0 1\n",
            "1\n0\none\nSTARTED 0 1\nFT 0 x\n",
            "1\n0\none\nSTARTED 7 1\nFT 7 1\n",
        ] {
            assert!(covering(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn the_deep_ones_are_kept_and_not_the_smallest_hundred() {
        // As a search leaves them: hundreds of small inputs with an edge of their own, and a few large ones that go far.
        let mut inputs: Vec<_> = (0..400)
            .map(|n| input(&format!("small-{n}"), n, [n]))
            .collect();
        inputs.push(input("deep", 9_000, (0..40).chain(1_000..1_500)));
        inputs.push(input("deeper", 30_000, 1_000..1_700));
        let chosen = choose(&inputs, &[], ROOM);
        assert_eq!(names(&chosen[..2]), ["deeper", "deep"]);
        assert_eq!(chosen.len(), ROOM.files);
        assert!(!names(&chosen).contains(&"small-7"), "`deep` covers it");
        assert_eq!(names(&chosen[2..4]), ["small-40", "small-41"]);
    }

    #[test]
    fn what_is_kept_anyway_counts_and_limits_hold() {
        let inputs = [
            input("known", 10, [1, 2]),
            input("large", 900, [3, 4, 5, 6]),
            input("middling", 200, [3, 4, 5]),
            input("small", 100, [3, 4, 5]),
            input("last", 50, [6]),
        ];
        let anyway = [input("seed-one", 20, [1, 2])];
        let room = |files, bytes| Room { files, bytes };
        let chosen = |room| names(&choose(&inputs, &anyway, room)).join(" ");
        assert_eq!(chosen(ROOM), "large");
        assert_eq!(chosen(room(10, 899)), "small last");
        assert_eq!(chosen(room(1, 899)), "small");
        assert_eq!(chosen(room(10, 120)), "small");
        assert_eq!(chosen(room(0, 899)), "");
        assert_eq!(names(&choose(&[], &anyway, ROOM)), [""; 0]);
    }

    #[test]
    fn where_bytes_are_short_many_small_ones_beat_a_large_one() {
        let mut inputs = vec![input("large", 1_000, 0..12)];
        inputs.extend((0..30).map(|n| input(&format!("small-{n}"), 40, [n])));
        let room = Room {
            files: 100,
            bytes: 1_000,
        };
        let chosen = choose(&inputs, &[], room);
        assert_eq!(chosen.len(), 25, "{chosen:?}");
        // With room for few files the large one is worth its length.
        let few = Room { files: 5, ..room };
        assert_eq!(names(&choose(&inputs, &[], few)), ["large"]);
    }

    #[test]
    fn the_choice_does_not_depend_on_the_order() {
        let mut inputs: Vec<_> = (0..50)
            .map(|n| {
                input(
                    &format!("i{n}"),
                    10 + n % 7,
                    [n % 13, n % 5 + 20, n % 3 + 40],
                )
            })
            .collect();
        let chosen = choose(&inputs, &[], ROOM);
        inputs.reverse();
        assert_eq!(choose(&inputs, &[], ROOM), chosen);
        let covered = |paths: &[PathBuf]| -> HashSet<u64> {
            let of = inputs.iter().filter(|c| paths.contains(&c.path));
            of.flat_map(|c| c.features.clone()).collect()
        };
        let all: Vec<_> = inputs.iter().map(|c| c.path.clone()).collect();
        assert_eq!(
            covered(&chosen),
            covered(&all),
            "nothing is lost where there is room"
        );
    }
}
