//! The words that villages are made of. Lists of names are longer than a village needs, so seeds differ.

/// A trade: who does it, what it makes, the tool.
pub(super) const TRADES: [[&str; 3]; 16] = [
    ["baker", "bread", "a shovel"],
    ["smith", "nails", "a hammer"],
    ["weaver", "cloth", "a loom"],
    ["potter", "jugs", "a wheel"],
    ["tailor", "coats", "a needle"],
    ["joiner", "chairs", "a saw"],
    ["cooper", "barrels", "a plane"],
    ["tanner", "leather", "a knife"],
    ["brewer", "beer", "a kettle"],
    ["printer", "books", "a press"],
    ["hatter", "hats", "a pair of scissors"],
    ["carver", "spoons", "a chisel"],
    ["painter", "signs", "a brush"],
    ["cobbler", "shoes", "an awl"],
    ["miller", "flour", "a millstone"],
    ["chandler", "candles", "a mould"],
];

/// An animal: what it eats, where it sleeps.
pub(super) const ANIMALS: [[&str; 3]; 10] = [
    ["cat", "fish", "in a basket"],
    ["dog", "bones", "in a hut"],
    ["goat", "leaves", "in a shed"],
    ["hen", "seeds", "in a coop"],
    ["duck", "snails", "in the reeds"],
    ["horse", "hay", "in a stable"],
    ["rabbit", "carrots", "in a burrow"],
    ["owl", "mice", "in a hollow tree"],
    ["sheep", "grass", "in a fold"],
    ["fox", "berries", "in a den"],
];

pub(super) const WOMEN: [&str; 12] =
    ["Ada", "Bea", "Cora", "Dina", "Elsa", "Fay", "Greta", "Hanna", "Ida", "Jana", "Kira", "Lena"];
pub(super) const MEN: [&str; 12] =
    ["Abel", "Boris", "Carl", "Dan", "Egon", "Finn", "Gus", "Hugo", "Ivan", "Jon", "Karl", "Leo"];
pub(super) const PETS: [&str; 20] = [
    "Bella", "Bruno", "Coco", "Daisy", "Dot", "Fluff", "Gigi", "Hopper", "Jolly", "Lucky", "Max", "Milo",
    "Nip", "Olli", "Pip", "Rex", "Socks", "Tiny", "Toby", "Zip",
];
pub(super) const PLACES: [&str; 10] =
    ["mill", "bridge", "well", "barn", "inn", "school", "tower", "market", "garden", "pond"];
pub(super) const SPOTS: [&str; 8] = [
    "on the hill",
    "by the river",
    "behind the church",
    "near the wood",
    "in the valley",
    "on the square",
    "beside the road",
    "under the cliff",
];
pub(super) const COLOURS: [&str; 8] = ["red", "blue", "green", "white", "black", "yellow", "brown", "grey"];
pub(super) const THINGS: [&str; 16] = [
    "lamp", "box", "kite", "cap", "drum", "key", "cup", "bell", "ball", "pen", "bag", "ring", "boat", "comb",
    "rope", "flag",
];
pub(super) const FOODS: [&str; 7] = ["soup", "pie", "cake", "stew", "jam", "salad", "pudding"];
pub(super) const PARTS: [&str; 8] =
    ["onions", "apples", "plums", "beans", "nuts", "pears", "cherries", "peas"];
pub(super) const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// What people count and give away.
pub(super) const GOODS: [&str; 8] =
    ["apples", "cups", "eggs", "nails", "pears", "shells", "spoons", "stones"];
