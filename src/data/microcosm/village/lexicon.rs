//! The words that villages are made of. Lists of names are longer than a village needs, so seeds differ.

/// A trade: who does it, what it makes, the tool.
pub(super) const TRADES: [[&str; 3]; 10] = [
    ["baker", "bread", "a shovel"],
    ["smith", "nails", "a hammer"],
    ["weaver", "cloth", "a loom"],
    ["potter", "jugs", "a wheel"],
    ["tailor", "coats", "a needle"],
    ["joiner", "chairs", "a saw"],
    ["tanner", "leather", "a knife"],
    ["brewer", "beer", "a kettle"],
    ["printer", "books", "a press"],
    ["painter", "signs", "a brush"],
];

/// An animal: what it eats, where it sleeps.
pub(super) const ANIMALS: [[&str; 3]; 8] = [
    ["cat", "fish", "in a basket"],
    ["dog", "bones", "in a hut"],
    ["goat", "leaves", "in a shed"],
    ["hen", "seeds", "in a coop"],
    ["duck", "snails", "in the reeds"],
    ["horse", "hay", "in a stable"],
    ["rabbit", "carrots", "in a burrow"],
    ["owl", "mice", "in a hollow tree"],
];

pub(super) const WOMEN: [&str; 8] = ["Ada", "Bea", "Cora", "Dina", "Elsa", "Greta", "Hanna", "Ida"];
pub(super) const MEN: [&str; 8] = ["Abel", "Boris", "Carl", "Dan", "Egon", "Finn", "Hugo", "Ivan"];
pub(super) const PETS: [&str; 14] = [
    "Bella", "Bruno", "Coco", "Daisy", "Fluff", "Hopper", "Lucky", "Max", "Milo", "Pip", "Rex", "Socks",
    "Toby", "Zip",
];
pub(super) const PLACES: [&str; 8] = ["mill", "bridge", "well", "barn", "inn", "school", "market", "garden"];
pub(super) const SPOTS: [&str; 6] =
    ["on the hill", "by the river", "behind the church", "near the wood", "in the valley", "on the square"];
pub(super) const COLOURS: [&str; 8] = ["red", "blue", "green", "white", "black", "yellow", "brown", "grey"];
pub(super) const THINGS: [&str; 12] =
    ["lamp", "box", "kite", "cap", "drum", "key", "cup", "bell", "ball", "bag", "ring", "rope"];
pub(super) const FOODS: [&str; 6] = ["soup", "pie", "cake", "stew", "jam", "salad"];
pub(super) const PARTS: [&str; 7] = ["onions", "apples", "plums", "beans", "nuts", "pears", "peas"];
pub(super) const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// What people count and give away.
pub(super) const GOODS: [&str; 8] =
    ["apples", "cups", "eggs", "nails", "pears", "shells", "spoons", "stones"];
