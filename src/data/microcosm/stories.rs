//! The `stories` register: short tales about the people of the world, who keep their trades, towns and things.

use super::entity::{Entity, Value};
use super::scribe::Scribe;

type Plot = fn(&mut Scribe) -> String;

const PLOTS: [Plot; 13] = [
    lost_pet,
    delivery,
    swaps,
    borrowed,
    lesson,
    festival_dish,
    flood,
    wild_guest,
    quarrel,
    old_tale,
    visit,
    gift,
    fog,
];

/// A tale; its cast is one person and those near to that person.
pub(super) fn write(scribe: &mut Scribe) -> String {
    let world = scribe.world;
    let plot = *scribe.random.pick(&PLOTS);
    let person = scribe.random.below(world.people.len());
    cast(scribe, person);
    plot(scribe) + "\n"
}

/// Sets `p`, the town `t`, three neighbours `a`, `b`, `c`, the friend `f`, and when it happened: `season`, `once`.
fn cast(scribe: &mut Scribe, person: usize) {
    let world = scribe.world;
    let town = world.people[person].town;
    let others: Vec<usize> = world.people_of(town).filter(|&i| i != person).collect();
    let others = scribe.random.shuffled(&others);
    scribe.set("p", Entity::Person(person));
    scribe.set("t", Entity::Town(town));
    for (slot, other) in ["a", "b", "c"].into_iter().zip(others) {
        scribe.set(slot, Entity::Person(other));
    }
    scribe.set("f", Entity::Person(world.people[person].friend));
    let season = *scribe.random.pick(&["spring", "summer", "autumn", "winter"]);
    scribe.set("season", season);
    let once = scribe
        .fill("[One day|One morning|One {season} day|Early one {season} morning|Not long ago|One {t.day}]");
    scribe.set("once", once);
}

/// Makes `p` somebody for whom a field holds.
fn cast_with(scribe: &mut Scribe, field: &str) {
    let world = scribe.world;
    let able: Vec<usize> =
        (0..world.people.len()).filter(|&i| world.follow(Entity::Person(i), field).is_some()).collect();
    let person = *scribe.random.pick(&able);
    cast(scribe, person);
}

const WHO: &str = "[{p} was {a p.trade} in {t}|in {t}, {t.land}, there lived {a p.trade} called {p}|\
                   {p} the {p.trade} lived in {t}, {t.land}|there was once {a p.trade} in {t} whose name was {p}].";

fn lost_pet(scribe: &mut Scribe) -> String {
    cast_with(scribe, "pet");
    let place = scribe
        .fill("[the {t.landmark}|the bank of {t.river}|the {a.trade.place}|the old barn|the market square]");
    scribe.set("place", place);
    let first = scribe.tell(&[
        WHO,
        "{p.he} had {a p.pet} called {p.petname}[, and the two were never apart| that went everywhere with {p.him}|].",
        "{once} [{p} came home and {p.petname} was gone|{p.petname} did not come when {p} called|{p} woke up and could not find {p.petname}].",
    ]);
    let second = scribe.tell(&[
        "{p} [went to|asked] {b} the {b.trade}. \"[Have you seen my {p.pet}|Have you seen {p.petname}]?\"",
        "[\"no,\" said {b}, \"but I will help you look.\"|\"I have seen nothing but {b.trade.ware} all day,\" said {b}.]",
        "then {p} asked {c} the {c.trade}[|, who was busy in the {c.trade.place}].",
        "\"[Yes|I think so],\" said {c}. \"I [saw|heard] {a p.pet} near {place}[| not an hour ago].\"",
    ]);
    let third = scribe.tell(&[
        "so {p} [ran|hurried] to {place}[, and {b} came too|].",
        "there [was {p.petname}|sat {p.petname}|lay {p.petname}], [eating somebody's dinner|fast asleep|as happy as could be|with a friend, another {p.pet}].",
        "{p} [laughed|was so glad that {p.he} danced] and [carried|took] {p.petname} home.",
        "that evening {p} gave {c} {a p.trade.good}[ to say thank you|, because {c} had seen {p.petname} near {place}].",
        "[{p.petname} never ran away again|{p.petname} got a good supper, and {p} had {p.food}|from that day on, {p} kept the door shut].",
    ]);
    [first, second, third].join("\n\n")
}

fn delivery(scribe: &mut Scribe) -> String {
    let wild: Vec<usize> =
        (0..scribe.world.animals.len()).filter(|&i| !scribe.world.animals[i].tame).collect();
    let animal = *scribe.random.pick(&wild);
    scribe.set("w", Entity::Animal(animal));
    let first = scribe.tell(&[
        WHO,
        "{once} a letter came from {f}, {a f.trade} in {f.town}.",
        "\"[Dear friend|My dear {p}],\" it said, \"[please bring me|I need] {a p.trade.good}[ before the week is over| as soon as you can|].\"",
        "{p} [put {a p.trade.good} into a bag|packed the best {p.trade.good} that {p.he} had], took {p.his} {p.thing}, and set out for {f.town}.",
    ]);
    let second = scribe.tell(&[
        "on the way {p.he} met {a w}.",
        "[as everybody knows, the {w} eats {w.diet}|the {w} looked hungry], so {p} gave it some bread.",
        "[the {w} ate it and followed {p} for a mile|\"go home, {w},\" said {p}, but the {w} came along|the {w} bowed, or so it seemed, and was gone].",
        "[it began to rain, but {p} went on|the road was long, but {p} sang all the way|{p} slept one night under a tree].",
    ]);
    let third = scribe.tell(&[
        "[at last {p} saw the {f.town.landmark} of {f.town}|when {p} saw the {f.town.landmark}, {p.he} knew that this was {f.town}].",
        "{f} was [waiting at the door|working in the {f.trade.place}].",
        "\"here is your {p.trade.good},\" said {p}. \"[And where is my supper?|I hope you like it.]\"",
        "{f} [laughed|was very glad], and they ate {f.food}[, which {f} likes best,|] and talked until late.",
        "when {p} went home to {t}, {p.he} carried {a f.trade.good} that {f} had given {p.him}[, and the {p.thing}|].",
    ]);
    [first, second, third].join("\n\n")
}

fn swaps(scribe: &mut Scribe) -> String {
    let first = scribe.tell(&[
        WHO,
        "{once} {p} needed {a c.trade.good}, but [had no money|{p.his} purse was empty].",
        "all that {p.he} had was {a p.trade.good}[ and a good idea|].",
    ]);
    let second = scribe.tell(&[
        "{p} went to {c} the {c.trade}. \"[Will you give me|Can I have] {a c.trade.good} for {a p.trade.good}?\"",
        "\"[I have no use for {a p.trade.good},|what would I do with {a p.trade.good}?]\" said {c}. \"Bring me {a b.trade.good}, and [the {c.trade.good} is yours|we can talk].\"",
        "so {p} went to {b} the {b.trade}, but {b} [wanted|asked for] {a a.trade.good}.",
        "[then|after that] {p} went to {a} the {a.trade}.",
        "\"{a p.trade.good}!\" cried {a}. \"[That is just what I need|I have wanted one for years].\"",
    ]);
    let third = scribe.tell(&[
        "{a} took the {p.trade.good} and gave {p} {a a.trade.good}.",
        "{b} took the {a.trade.good} and gave {p} {a b.trade.good}.",
        "{c} took the {b.trade.good} and gave {p} {a c.trade.good}.",
        "{p} [carried the {c.trade.good} home|went home with the {c.trade.good}] and [slept well|was well pleased].",
        "[\"money is a fine thing,\" {p.he} said, \"but good neighbours are better.\"|in {t} they still tell how {p} got {a c.trade.good} for {a p.trade.good}.]",
    ]);
    [first, second, third].join("\n\n")
}

fn borrowed(scribe: &mut Scribe) -> String {
    let first = scribe.tell(&[
        WHO,
        "{p.he} had {a p.thing}[, and nothing was dearer to {p.him}| that had belonged to {p.his} grandmother|].",
        "{once} {a} the {a.trade} came by. \"[Please lend me your {p.noun},|may I borrow your {p.noun}?]\" said {a}. \"[I will bring it back tomorrow|It is only for a day].\"",
        "{p} [did not like to say no|said yes at once], and {a} took the {p.noun} [home|away].",
    ]);
    let second = scribe.tell(&[
        "[a day passed, and then a week|three days went by], but the {p.noun} did not come back.",
        "[in the end|at last] {p} went to the {a.trade.place}. {a} turned red. \"[I lent it to {b}|I gave it to {b}, who begged me for it],\" said {a}.",
        "so {p} went to {b}, the {b.trade}. {b} turned red too. \"[{c} has it|I left it with {c}],\" said {b}.",
        "{c}, the {c.trade}, was [sitting|standing] in the {c.trade.place} with the {p.thing} [on the table|in both hands].",
    ]);
    let third = scribe.tell(&[
        "\"is this yours?\" asked {c}. \"It was [dirty, so I cleaned it|broken, so I mended it].\"",
        "[the {p.noun} looked better than ever|the {p.noun} was as good as new], and {p} [could not be angry|had to laugh].",
        "{p} gave {c} {a p.trade.good}, and {a} and {b} [said that they were sorry|promised to ask first next time].",
        "[since then|now] {p} never leaves the house without the {p.thing}.",
    ]);
    [first, second, third].join("\n\n")
}

fn lesson(scribe: &mut Scribe) -> String {
    cast_with(scribe, "teacher");
    scribe.set("m", scribe.value("p.teacher").unwrap_or(Value::Text(String::new())));
    let first = scribe.tell(&[
        "when {p} was young, {p.he} [wanted to be|dreamed of being] {a p.trade}.",
        "{p.his} mother {p.mother} was {a p.mother.trade}, and {p.his} father {p.father} was {a p.father.trade}, [so nobody at home could teach {p.him}|but {p} had other plans].",
        "so {p} left {t} and went to {m}, the {m.trade} of {m.town}.",
    ]);
    let second = scribe.tell(&[
        "\"[Show me your hands|let me see your hands],\" said {m}. \"Good. Here is {a m.trade.tool}, and here is some {m.trade.stuff}.\"",
        "the first {p.trade.good} that {p} {p.trade.made} was [much too small|so bad that even the hens laughed]. \"Again,\" said {m}.",
        "the second was [a little better|not good, but better]. \"again,\" said {m}.",
        "[{p} wanted to give up|{p} was tired and sad]. but {m} [said|told {p.him}], \"[my first hundred were no better|I threw away a hundred before I kept one].\"",
    ]);
    let third = scribe.tell(&[
        "the third {p.trade.good} was [fine and even|not bad at all]. {m} looked at it for a long time.",
        "\"[I will keep this one|this one we can sell],\" said {m}. \"It is worth {p.trade.cost}.\"",
        "[{p} was so proud that {p.he} could not sleep|{p} ran all the way home to tell {p.mother}].",
        "today {p} is {a p.trade} in {t}, and [when somebody wants to learn|to everybody who wants to give up], {p.he} says: \"Again.\"",
    ]);
    [first, second, third].join("\n\n")
}

fn festival_dish(scribe: &mut Scribe) -> String {
    scribe.set("d", scribe.value("t.dish").unwrap_or(Value::Text(String::new())));
    let first = scribe.tell(&[
        "every {t.month}, {t} holds {t.festival}, and [there must be {d}|nobody goes home without some {d}].",
        "[one year|last year] it was {p} the {p.trade} who had to make it[|, because the cook was ill].",
        "\"{d} is made of {d.first}, {d.second} and {d.third},\" said {p}. \"[I have none of them|but my shelf is empty].\"",
    ]);
    let second = scribe.tell(&[
        "{a} the {a.trade} [heard it|came by] and brought the {d.first}.",
        "then {b} the {b.trade} [knocked at the door with|came with] the {d.second}.",
        "[now only the {d.third} was missing|\"but what about the {d.third}?\" asked {p}]. {c} the {c.trade} [had some at home|found some in the {c.trade.place}].",
    ]);
    let third = scribe.tell(&[
        "{p} put the {d.first}, the {d.second} and the {d.third} together, and the {d} was {d.cooked}.",
        "[soon the whole street smelled of it|people came from all sides].",
        "\"[How good this is|This is the best in years]!\" cried [somebody|the people].",
        "\"[it was not I alone|four of us made it],\" said {p}. \"{a} gave the {d.first}, {b} the {d.second}, and {c} the {d.third}.\"",
        "and they all [danced|sang] by the {t.landmark} until [the moon was high|the morning].",
    ]);
    [first, second, third].join("\n\n")
}

fn flood(scribe: &mut Scribe) -> String {
    let first = scribe.tell(&[
        "it had rained for [three days|a week], and {t.river} rose and rose.",
        "in {t}, {a p.trade} called {p} [could not sleep|lay awake] and listened to the water.",
        "[in the middle of the night|before the sun was up] {p} heard [a shout|somebody call]. it was {a} the {a.trade}. \"the water is in my {a.trade.place}!\"",
    ]);
    let second = scribe.tell(&[
        "{p} took {p.his} {p.thing} and ran out[ into the rain|].",
        "on the way {p.he} woke {b} the {b.trade} and {c} the {c.trade}.",
        "they [stood in a row|made a chain], and the {a.trade.goods} went from hand to hand: from {a} to {b}, from {b} to {c}, and from {c} to {p}, who [put them down|laid them] by the {t.landmark}, where it was dry.",
        "[nobody said a word|they worked until their arms hurt].",
    ]);
    let third = scribe.tell(&[
        "[when the sun rose|in the morning], {t.river} was [calm|low] again.",
        "the {a.trade.place} was full of mud, but all the {a.trade.goods} were safe[|, and so was {p}'s {p.thing}].",
        "{a} gave {p}, {b} and {c} {a a.trade.good} each. [\"a river takes,\" said {a}, \"but neighbours give.\"|\"water comes and goes,\" said {a}, \"but friends stay.\"]",
        "[then they all went to bed|then {p} went home and slept until noon].",
    ]);
    [first, second, third].join("\n\n")
}

fn wild_guest(scribe: &mut Scribe) -> String {
    let wild: Vec<usize> =
        (0..scribe.world.animals.len()).filter(|&i| !scribe.world.animals[i].tame).collect();
    let animal = *scribe.random.pick(&wild);
    scribe.set("w", Entity::Animal(animal));
    let first = scribe.tell(&[
        WHO,
        "{once} {p.he} found {a w} [near|not far from] the {t.landmark}. [it was hurt|it could not walk].",
        "[\"poor thing,\" said {p}, and|{p} looked at it for a while. then {p.he}] carried it home to the {p.trade.place}.",
    ]);
    let second = scribe.tell(&[
        "{a} the {a.trade} said, \"{a w} is a wild thing. [It sleeps {w.home}, not in a house|Let it go].\"",
        "but {p} [shook {p.his} head|did not listen] and [brought|gave] it {w.diet}.",
        "[every day|day by day] the {w} grew stronger. [it learned to open the door|it slept on {p}'s bed|it watched {p} at work], and {p} [liked its company|talked to it all day].",
        "when {season} was over, the {w} [was gone|went away without a sound].",
    ]);
    let third = scribe.tell(&[
        "[a year later|many weeks later] {p} lost {p.his} {p.thing} [on the road|in the dark].",
        "{p.he} [looked everywhere|asked everybody], but nobody in {t} had seen the {p.noun}.",
        "then, one evening, there was a noise at the door. {p} opened it, and there [sat|stood] the {w} with the {p.noun}[|, which was only a little wet].",
        "\"so you remember me,\" said {p}. [the {w} stayed for supper|the {w} looked at {p.him} and went back into the night].",
        "{a} the {a.trade} never [said a word against it|spoke of wild things] again.",
    ]);
    [first, second, third].join("\n\n")
}

fn quarrel(scribe: &mut Scribe) -> String {
    let first = scribe.tell(&[
        "{a} the {a.trade} and {b} the {b.trade} were neighbours in {t}[, and they quarrelled about everything|].",
        "{once} they quarrelled about [whose work was harder|who worked harder].",
        "\"[Anybody can {b.trade.make} {b.trade.ware}|it is easy to {b.trade.make} {b.trade.ware}],\" said {a}. \"[Nobody can live without {a.trade.ware}|But {a.trade.ware}! That is real work].\"",
        "{b} [was so angry that {b.he} could not speak|grew red in the face].",
    ]);
    let second = scribe.tell(&[
        "{p} the {p.trade} heard them. \"[Try it|then change places] for a day,\" said {p}.",
        "so {a} went to the {b.trade.place} and took the {b.trade.tool}, and {b} went to the {a.trade.place} and took the {a.trade.tool}.",
        "by noon {a} had spoiled all the {b.trade.stuff}, and {b} had [hurt a thumb|fallen over a bucket].",
        "not one {b.trade.good} was finished, and not one {a.trade.good} either.",
    ]);
    let third = scribe.tell(&[
        "in the evening they met [at|by] the {t.landmark}. [for a while neither spoke|they looked at each other and began to laugh].",
        "\"I take it back,\" said {a}. \"It is hard to [be {a b.trade}|{b.trade.make} {b.trade.ware}].\"",
        "\"[And it is hard to {a.trade.make} {a.trade.ware}|I take it back too],\" said {b}.",
        "{p} [brought {p.food}|smiled and said nothing], and [the three ate together|they sat there until it was dark].",
        "now {a} and {b} are the best of neighbours, though they still quarrel about [the weather|{p}'s {p.thing}].",
    ]);
    [first, second, third].join("\n\n")
}

fn old_tale(scribe: &mut Scribe) -> String {
    let wild: Vec<usize> =
        (0..scribe.world.animals.len()).filter(|&i| !scribe.world.animals[i].tame).collect();
    let animal = *scribe.random.pick(&wild);
    scribe.set("w", Entity::Animal(animal));
    let first = scribe.tell(&[
        "[on {season} evenings|when the work is done], the children of {t} come to {p} the {p.trade}.",
        "\"tell us [about the {t.landmark}|how {t} began],\" they say, and {p} [puts down {p.his} {p.thing}|sits down by the fire] and begins.",
    ]);
    let second = scribe.tell(&[
        "\"in the year {t.founded} there was nothing here but {t.river}.",
        "[a poor {t.craft}|{a t.craft} with empty pockets] came along the bank and was [cold|tired].",
        "then {a w} came out of the [grass|reeds] and said, 'follow me.'",
        "the {t.craft} followed the {w} to [a dry place|the very spot where we sit], and there, {t.land}, [built a hut|lit a fire].",
        "soon others came, and the {t.craft} {t.craft.made} {t.craft.ware} for them all.\"",
    ]);
    let third = scribe.tell(&[
        "\"and the {w}?\" ask the children.",
        "\"[It {w.habit}, as you know|it went back to its home {w.home}],\" says {p}. \"but once a year, in {t.month}, [it comes to the {t.landmark}|somebody sees it by the {t.landmark}]. that is why we have {t.festival}.\"",
        "\"is that true?\" ask the children.",
        "\"[as true as I am {a p.trade}|as true as my {p.thing}],\" says {p}, and [sends them home|that is the end of the story].",
    ]);
    [first, second, third].join("\n\n")
}

fn visit(scribe: &mut Scribe) -> String {
    let first = scribe.tell(&[
        "{f} the {f.trade} came from {f.town} to {t} to see {p}, {f.his} best friend.",
        "\"[show me everything|I want to see everything],\" said {f}. \"[I have only a day|Tomorrow I must be back in {f.town}].\"",
        "{p}, who is {a p.trade}, [shut the {p.trade.place}|put away the {p.trade.tool}] and took {p.his} {p.thing}.",
    ]);
    let second = scribe.tell(&[
        "first they went to the {t.landmark}. \"[We have nothing like it in {f.town}|At home we have only the {f.town.landmark}],\" said {f}.",
        "then they walked along {t.river}, which is {t.river.look}, and [watched the {t.river.fish}|threw stones into the water].",
        "at noon they ate {t.dish}. \"what is in it?\" asked {f}. \"{t.dish.first}, {t.dish.second} and {t.dish.third},\" said {p}, \"[and a secret|and love].\"",
        "after that they [looked in on|called on] {a} the {a.trade}, who [gave {f} {a a.trade.good}|sold {f} {a a.trade.good} for {a.trade.cost}].",
    ]);
    let third = scribe.tell(&[
        "[when it grew dark|in the evening], {f} [sighed|looked back at {t}]. \"{t} is [beautiful|a good town]. [But|and yet] I would miss {f.town.river}.\"",
        "\"[and I would miss the {t.landmark}|I know],\" said {p}. \"[so we must go on visiting|next time I shall come to you].\"",
        "{p} gave {f} {a p.trade.good} for the road, and {f} went home to {f.town} with {a p.trade.good} and {a a.trade.good}.",
    ]);
    [first, second, third].join("\n\n")
}

fn gift(scribe: &mut Scribe) -> String {
    cast_with(scribe, "spouse");
    // Nobody buys what the other makes; that leaves out the husband or wife too.
    let trade = scribe.value("p.spouse.trade");
    let others = [("a", "a.trade"), ("b", "b.trade"), ("c", "c.trade"), ("f", "f.trade")];
    let makers = others.iter().filter(|(_, path)| scribe.value(path) != trade);
    let makers: Vec<Value> = makers.filter_map(|(slot, _)| scribe.value(slot)).collect();
    let makers = scribe.random.some(&makers, 2);
    scribe.set("m", makers[0].clone());
    scribe.set("n", makers[1].clone());
    let first = scribe.tell(&[
        WHO,
        "{p.his} {p.spouse.wife} {p.spouse} was {a p.spouse.trade}, and [soon it was {p.spouse}'s birthday|the birthday of {p.spouse} was near].",
        "\"what shall I give?\" thought {p}. \"[{p.spouse} has {a p.spouse.thing} and wants nothing else.|It must be a surprise.]\"",
    ]);
    let second = scribe.tell(&[
        "{p} [went|walked] to {m} the {m.trade} of {m.town}. \"[Everybody likes {m.trade.ware},|take {a m.trade.good},]\" said {m}.",
        "\"{p.spouse} has [enough {m.trade.ware}|{m.trade.ware} already],\" said {p}.",
        "then {p} [went|walked] to {n} the {n.trade} of {n.town}. \"[what does {p.spouse} love?|tell me about {p.spouse},]\" said {n}.",
        "\"{p.spouse} loves {p.spouse.food},\" said {p}, \"and the {t.landmark}[, and me|].\"",
        "{n} [laughed|smiled]. \"here is {a n.trade.good} for {n.trade.cost}. but [bring {p.spouse} to|sit with {p.spouse} by] the {t.landmark}, and take {p.spouse.food} with you. that is the gift.\"",
    ]);
    let third = scribe.tell(&[
        "so on the birthday {p} and {p.spouse} sat [by|near] the {t.landmark} and ate {p.spouse.food}.",
        "{p} [brought out|unpacked] the {n.trade.good}. \"it is from {n}, and it cost {n.trade.cost},\" said {p}.",
        "\"the {n.trade.good} is [fine|lovely],\" said {p.spouse}, \"but [this evening|to sit here with you] is better.\"",
        "[they stayed until {t.river} was dark|they walked home along {t.river}].",
    ]);
    [first, second, third].join("\n\n")
}

fn fog(scribe: &mut Scribe) -> String {
    let first = scribe.tell(&[
        "{once} {p} the {p.trade} was walking home to {t} from {f.town}, where {p.he} had [sold|delivered] some {p.trade.ware}.",
        "[the fog came down|a thick fog came up], and {p} [could not see the road|lost the road].",
        "all that {p.he} had was {p.his} {p.thing}[ and an empty bag|].",
    ]);
    let second = scribe.tell(&[
        "[\"stay calm,\" {p} told {p.himself}. \"Listen.\"|{p} stood still and listened.]",
        "[far away|somewhere on the left] there was the sound of water. \"that must be {t.river},\" said {p}, \"and {t.river} [runs through|goes past] {t}.\"",
        "so {p} went towards the sound, [step by step|with one hand in front of {p.him}], until there was [mud|wet grass] under {p.his} feet. it was the bank of {t.river}.",
        "{p} followed {t.river} for [an hour|a long time]. [it was cold|the fog did not lift].",
    ]);
    let third = scribe.tell(&[
        "at last [a voice called|somebody shouted], \"who is there?\" It was {a} the {a.trade}, with {a a.thing} in one hand.",
        "\"it is {p},\" said {p}. \"[Am I in {t}?|Is this {t}?]\"",
        "\"you are [ten steps from|right next to] the {t.landmark},\" said {a}[, and laughed|]. \"come to the {a.trade.place} and get warm.\"",
        "{b} the {b.trade} was there too, and [they all ate {p.food}|there was {p.food} for everybody].",
        "[\"trust the river,\" {p} says since then, \"and you will come home.\"|{p} never feared the fog again, because {t.river} knew the way.]",
    ]);
    [first, second, third].join("\n\n")
}
