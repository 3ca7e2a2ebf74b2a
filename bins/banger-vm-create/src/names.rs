//! Names for VMs that were given none.

use crate::parts::Random;
use banger_doc::Name;

const HOW: &[&str] = &[
    "able", "airy", "amber", "apt", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid",
    "clear", "clever", "cosy", "crisp", "dapper", "daring", "deft", "eager", "early", "easy",
    "fair", "fleet", "fresh", "frosty", "gentle", "glad", "golden", "grand", "happy", "hardy",
    "hasty", "humble", "jolly", "keen", "kind", "light", "lively", "lucky", "mellow", "merry",
    "mild", "neat", "nimble", "noble", "plain", "polite", "proud", "quick", "quiet", "ready",
    "rosy", "rustic", "sharp", "silent", "silver", "smooth", "snug", "solid", "spry", "steady",
    "sunny", "swift", "tidy", "trusty", "vivid", "warm", "wise", "witty", "young",
];

const WHO: &[&str] = &[
    "badger", "bat", "bear", "beaver", "bee", "bison", "boar", "camel", "carp", "cat", "cheetah",
    "cobra", "condor", "coyote", "crab", "crane", "crow", "deer", "dingo", "dove", "duck", "eagle",
    "egret", "elk", "falcon", "ferret", "finch", "fox", "frog", "gecko", "goat", "goose", "hare",
    "hawk", "heron", "hippo", "horse", "ibex", "ibis", "jackal", "jay", "koala", "lark", "lemur",
    "lion", "llama", "lynx", "mole", "moose", "mouse", "newt", "orca", "otter", "owl", "panda",
    "puffin", "quail", "raven", "robin", "seal", "shrew", "sloth", "stork", "swan", "tiger",
    "toad", "viper", "walrus", "weasel", "whale", "wolf", "wombat", "wren", "yak", "zebra",
];

/// Makes up a name; another one for each attempt.
pub(crate) fn made_up(random: &Random, attempt: usize) -> Name {
    let number = random.below(HOW.len() * WHO.len(), attempt);
    let (how, who) = (HOW[number % HOW.len()], WHO[number / HOW.len()]);
    format!("{how}-{who}").parse().expect("because the words are letters")
}
