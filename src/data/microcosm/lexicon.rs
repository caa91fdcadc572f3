//! The words that a world is made of. Every list is longer than a world needs, so seeds differ.

/// What is the same about a trade in every world.
#[derive(Debug, PartialEq, Eq)]
pub struct TradeWords {
    /// Who does it: "baker".
    pub name: &'static str,
    /// One of what is sold: "loaf".
    pub good: &'static str,
    /// Several of it: "loaves".
    pub goods: &'static str,
    /// The ware without a count: "bread".
    pub ware: &'static str,
    /// The verb in the forms "bake", "bakes", "baked".
    pub verb: [&'static str; 3],
    /// The place of work: "bakery".
    pub place: &'static str,
    /// The tool, without an article: "wooden paddle".
    pub tool: &'static str,
    /// What is used up: "flour".
    pub stuff: &'static str,
    /// The usual price of one good, in pennies; each world moves it a little.
    pub price: i64,
}

/// What is the same about an animal in every world.
#[derive(Debug, PartialEq, Eq)]
pub struct AnimalWords {
    /// "fox".
    pub name: &'static str,
    /// "foxes".
    pub plural: &'static str,
    /// Where it sleeps: "in a den".
    pub home: &'static str,
    /// What it eats: "mice and berries".
    pub diet: &'static str,
    /// A sentence's end about it: "hunts at night".
    pub habit: &'static str,
    /// The young one: "cub".
    pub young: &'static str,
    /// Whether people keep it.
    pub tame: bool,
}

/// What is the same about a dish in every world.
#[derive(Debug, PartialEq, Eq)]
pub struct FoodWords {
    /// A mass noun: "onion soup".
    pub name: &'static str,
    /// Three ingredients.
    pub parts: [&'static str; 3],
    /// How it is cooked, as a past participle: "baked in a deep dish".
    pub cooked: &'static str,
}

const fn trade(
    name: &'static str,
    good: &'static str,
    goods: &'static str,
    ware: &'static str,
    verb: [&'static str; 3],
    place: &'static str,
    tool: &'static str,
    stuff: &'static str,
    price: i64,
) -> TradeWords {
    TradeWords { name, good, goods, ware, verb, place, tool, stuff, price }
}

const fn animal(
    name: &'static str,
    plural: &'static str,
    home: &'static str,
    diet: &'static str,
    habit: &'static str,
    young: &'static str,
    tame: bool,
) -> AnimalWords {
    AnimalWords { name, plural, home, diet, habit, young, tame }
}

const fn food(name: &'static str, parts: [&'static str; 3], cooked: &'static str) -> FoodWords {
    FoodWords { name, parts, cooked }
}

const MAKE: [&str; 3] = ["make", "makes", "made"];

#[rustfmt::skip] // a table
pub(super) const TRADES: [TradeWords; 16] = [
    trade("baker", "loaf", "loaves", "bread", ["bake", "bakes", "baked"], "bakery", "wooden paddle", "flour", 3),
    trade("potter", "bowl", "bowls", "bowls", MAKE, "pottery", "turning wheel", "clay", 5),
    trade("weaver", "blanket", "blankets", "blankets", ["weave", "weaves", "wove"], "weaving shed", "loom", "wool", 14),
    trade("smith", "horseshoe", "horseshoes", "horseshoes", ["forge", "forges", "forged"], "forge", "heavy hammer", "iron", 4),
    trade("carpenter", "stool", "stools", "stools", ["build", "builds", "built"], "workshop", "fine saw", "oak", 9),
    trade("fisher", "fish", "fish", "fish", ["catch", "catches", "caught"], "boathouse", "long net", "bait", 2),
    trade("beekeeper", "jar of honey", "jars of honey", "honey", ["gather", "gathers", "gathered"], "bee garden", "smoke pot", "glass jars", 6),
    trade("cooper", "barrel", "barrels", "barrels", MAKE, "barrel yard", "curved knife", "ash wood", 12),
    trade("shoemaker", "pair of boots", "pairs of boots", "boots", ["sew", "sews", "sewed"], "shoe shop", "strong needle", "leather", 15),
    trade("candlemaker", "candle", "candles", "candles", MAKE, "candle house", "copper pot", "wax", 2),
    trade("gardener", "cabbage", "cabbages", "cabbages", ["grow", "grows", "grew"], "garden", "broad spade", "seed", 3),
    trade("cheesemaker", "cheese", "cheeses", "cheese", MAKE, "dairy", "stone press", "milk", 8),
    trade("basket maker", "basket", "baskets", "baskets", ["weave", "weaves", "wove"], "basket shed", "short knife", "willow", 4),
    trade("toymaker", "wooden horse", "wooden horses", "wooden horses", ["carve", "carves", "carved"], "toy shop", "small chisel", "pine", 7),
    trade("glassblower", "bottle", "bottles", "bottles", ["blow", "blows", "blew"], "glass house", "long pipe", "sand", 6),
    trade("tailor", "coat", "coats", "coats", ["sew", "sews", "sewed"], "tailor's shop", "pair of sharp scissors", "cloth", 18),
];

#[rustfmt::skip] // a table
pub(super) const ANIMALS: [AnimalWords; 16] = [
    animal("dog", "dogs", "by the fire", "meat and bones", "follows people everywhere", "puppy", true),
    animal("cat", "cats", "on a warm roof", "fish and mice", "washes after every meal", "kitten", true),
    animal("goat", "goats", "in a shed", "grass and leaves", "climbs on every wall", "kid", true),
    animal("donkey", "donkeys", "in a stable", "hay and carrots", "carries heavy bags", "foal", true),
    animal("goose", "geese", "in the yard", "grass and corn", "guards the gate better than a lock", "gosling", true),
    animal("hen", "hens", "in a small wooden house", "corn and worms", "lays an egg on most days", "chick", true),
    animal("rabbit", "rabbits", "in a hutch", "leaves and carrots", "thumps the ground when it is afraid", "kit", true),
    animal("pony", "ponies", "in a stable", "hay and apples", "pulls a cart", "foal", true),
    animal("fox", "foxes", "in a den", "mice and berries", "hunts at night", "cub", false),
    animal("owl", "owls", "in a hollow tree", "mice and moths", "flies without a sound", "owlet", false),
    animal("otter", "otters", "in the river bank", "fish and frogs", "slides down muddy slopes for fun", "pup", false),
    animal("heron", "herons", "in the tall trees by the water", "fish and frogs", "stands still for hours", "chick", false),
    animal("badger", "badgers", "deep under the ground", "worms and roots", "digs long tunnels", "cub", false),
    animal("hedgehog", "hedgehogs", "under dry leaves", "beetles and worms", "rolls into a ball when it is afraid", "hoglet", false),
    animal("deer", "deer", "among the ferns", "grass and bark", "runs at the smallest sound", "fawn", false),
    animal("swan", "swans", "on a nest of reeds", "water plants and seeds", "stays with one mate for life", "cygnet", false),
];

pub(super) const FOODS: [FoodWords; 12] = [
    food("onion soup", ["onions", "butter", "old bread"], "cooked slowly in an iron pot"),
    food("plum cake", ["plums", "flour", "honey"], "baked in a hot oven"),
    food("cheese pie", ["cheese", "eggs", "cream"], "baked in a deep dish"),
    food("fish stew", ["fish", "leeks", "milk"], "cooked in a wide pan"),
    food("barley bread", ["barley", "salt", "water"], "baked on a hot stone"),
    food("honey pudding", ["honey", "milk", "eggs"], "steamed for two hours"),
    food("mushroom tart", ["mushrooms", "cream", "pepper"], "baked in a flat dish"),
    food("pea soup", ["peas", "mint", "butter"], "cooked in a black pot"),
    food("apple cake", ["apples", "flour", "butter"], "baked in a round tin"),
    food("leek pie", ["leeks", "cheese", "pepper"], "baked in a clay dish"),
    food("nut bread", ["nuts", "rye", "honey"], "baked for a whole morning"),
    food("carrot stew", ["carrots", "barley", "salt"], "cooked over a small fire"),
];

pub(super) const WOMEN: [&str; 36] = [
    "Mirra", "Elsa", "Wenna", "Tilly", "Brida", "Oona", "Saffi", "Petra", "Linnet", "Marla", "Hazel", "Ivy",
    "Nella", "Runa", "Freya", "Dara", "Posy", "Mabel", "Greta", "Selma", "Thea", "Willa", "Junia", "Kerra",
    "Bryony", "Edda", "Fenna", "Lotta", "Rosa", "Anya", "Una", "Vera", "Clara", "Maud", "Sorrel", "Tansy",
];

pub(super) const MEN: [&str; 36] = [
    "Orlin", "Tobin", "Pell", "Bram", "Garrick", "Hob", "Ned", "Odo", "Perrin", "Silvan", "Tam", "Ulric",
    "Wat", "Alder", "Barnaby", "Cedric", "Davin", "Emmet", "Finn", "Gil", "Hugo", "Ivo", "Jory", "Kit",
    "Lorcan", "Milo", "Nolan", "Otto", "Piran", "Rowan", "Simon", "Theo", "Wilf", "Arlo", "Bertram", "Corin",
];

pub(super) const TOWNS: [&str; 24] = [
    "Tavel",
    "Brenwick",
    "Ashmere",
    "Coldbrook",
    "Dunmoor",
    "Eastholt",
    "Farrow",
    "Glenby",
    "Hollin",
    "Inverley",
    "Larkham",
    "Netherby",
    "Oakwell",
    "Penmarrow",
    "Redbourn",
    "Saltby",
    "Underhill",
    "Westry",
    "Yarrow",
    "Millbeck",
    "Stonely",
    "Wexcombe",
    "Quillon",
    "Merrydown",
];

pub(super) const RIVERS: [&str; 8] = ["Sarn", "Wend", "Lull", "Aster", "Brae", "Teel", "Morrow", "Isk"];

pub(super) const RIVER_LOOKS: [&str; 6] = [
    "slow and green",
    "quick and cold",
    "wide and brown",
    "clear and shallow",
    "deep and dark",
    "narrow and loud",
];

pub(super) const RIVER_FISH: [&str; 6] = ["trout", "pike", "eels", "perch", "salmon", "carp"];

pub(super) const LANDS: [&str; 6] = [
    "the Vale of Merrow",
    "the Green Marches",
    "the Long Valley",
    "the Land of Three Rivers",
    "the Low Country",
    "the Vale of Larks",
];

/// The four landscapes from north to south, as a town lies in them.
pub(super) const LANDSCAPES: [&str; 4] = ["in the hills", "in the forest", "on the plain", "by the sea"];

/// Landmarks that fit each landscape.
pub(super) const LANDMARKS: [[&str; 4]; 4] = [
    ["ruined castle", "stone circle", "old watchtower", "slate steps"],
    ["giant oak", "mossy well", "hunting lodge", "rope bridge"],
    ["white windmill", "tall bell tower", "round barn", "walled garden"],
    ["lighthouse", "long pier", "harbour wall", "shell cave"],
];

pub(super) const DAYS: [&str; 6] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Each month with the festival that belongs to it.
pub(super) const FESTIVALS: [(&str, &str); 12] = [
    ("January", "the Snow Supper"),
    ("February", "the Feast of Lanterns"),
    ("March", "the Kite Fair"),
    ("April", "the Lamb Show"),
    ("May", "the Flower Parade"),
    ("June", "the Boat Race"),
    ("July", "the Honey Fair"),
    ("August", "the Fiddle Contest"),
    ("September", "the Apple Dance"),
    ("October", "the Bread Race"),
    ("November", "the Night of Bells"),
    ("December", "the Great Swap"),
];

pub(super) const PETS: [&str; 28] = [
    "Button",
    "Clover",
    "Pepper",
    "Biscuit",
    "Thistle",
    "Bramble",
    "Toffee",
    "Pebble",
    "Mustard",
    "Feather",
    "Ginger",
    "Nutmeg",
    "Domino",
    "Acorn",
    "Barley",
    "Velvet",
    "Marble",
    "Cricket",
    "Poppet",
    "Juniper",
    "Copper",
    "Dandelion",
    "Ember",
    "Pickle",
    "Sparrow",
    "Tinker",
    "Walnut",
    "Whistle",
];

pub(super) const THINGS: [&str; 10] =
    ["lamp", "umbrella", "flute", "scarf", "kettle", "hat", "drum", "clock", "key", "mirror"];

pub(super) const LOOKS: [&str; 8] = ["blue", "golden", "red", "yellow", "white", "green", "old", "tiny"];
