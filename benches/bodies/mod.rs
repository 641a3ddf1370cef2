//! The bodies that the benches work on, and the paths of what is classified in them.

/// Luck that is the same in every run (xorshift).
pub struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn words(&mut self, most: usize) -> String {
        const WORDS: [&str; 12] = [
            "left",
            "at",
            "the",
            "door",
            "\\\"again\\\"",
            "Straße",
            "by",
            "courier",
            "on",
            "Monday",
            "naïve",
            "signature",
        ];
        let words: Vec<&str> = (0..=self.roll(most + 1))
            .map(|_| WORDS[self.roll(WORDS.len())])
            .collect();
        words.join(" ")
    }
}

/// A customer as an order service sends it, about 2 KB with seven classified fields; no two have the same members in the same order,
/// and half of them are indented.
fn customer(dice: &mut Dice) -> String {
    let n = dice.roll(100_000_000);
    let pretty = dice.roll(2) == 0;
    let mut members = vec![
        format!("\"id\":\"cus_{n:08}\""),
        format!("\"created\":{}", 1_700_000_000 + n),
        format!("\"name\":\"{}\"", dice.words(3)),
        format!(
            "\"ssn\":\"{:03}-{:02}-{:04}\"",
            n % 1000,
            n % 100,
            n % 10_000
        ),
        format!(
            "\"email\":\"{}{n}@example.com\"",
            ["ada", "grace.hopper", "k"][dice.roll(3)]
        ),
        format!("\"phone\":\"+44 20 7946 {:04}\"", n % 10_000),
        format!("\"active\":{}", dice.roll(2) == 0),
        format!("\"score\":{}.{}", dice.roll(100), dice.roll(1000)),
        format!("\"passport\":\"C01X{:05}\"", n % 100_000),
        format!("\"iban\":\"DE8937040044{n:010}\""),
        format!(
            "\"address\":{{\"street\":\"{} {}\",\"city\":\"Berlin\",\"zip\":\"{:05}\",\"country\":\"DE\",\"geo\":[52.{n},13.4]}}",
            dice.words(2),
            dice.roll(200),
            dice.roll(99_999)
        ),
        format!(
            "\"cards\":[{{\"number\":\"41111111{n:08}\",\"brand\":\"visa\",\"exp\":\"12/29\"}},{{\"brand\":\"mastercard\",\"number\":\"55000000{n:08}\",\"default\":false}}]"
        ),
    ];
    for optional in [
        "tags", "locale", "referrer", "consent", "vat_id", "notes", "metadata",
    ] {
        match dice.roll(4) {
            0 => members.push(format!("\"{optional}\":null")),
            1 => members.push(format!(
                "\"{optional}\":[\"{}\",{}]",
                dice.words(1),
                dice.roll(1000)
            )),
            2 => members.push(format!(
                "\"{optional}\":{{\"{}\":\"{}\"}}",
                dice.words(0).replace(['\\', '"'], ""),
                dice.words(4)
            )),
            _ => {}
        }
    }
    let orders: Vec<String> = (0..10 + dice.roll(5))
        .map(|order| {
            let mut members = vec![
                format!("\"id\":\"ord_{n}_{order}\""),
                format!("\"sku\":\"SKU-{:05}\"", dice.roll(100_000)),
                format!("\"quantity\":{}", dice.roll(20)),
                format!("\"price\":{}.{:02}", dice.roll(500), dice.roll(100)),
                "\"currency\":\"EUR\"".to_owned(),
            ];
            if dice.roll(2) == 0 {
                members.push(format!("\"note\":\"{}\"", dice.words(6)));
            }
            if dice.roll(3) == 0 {
                members.push("\"shipped\":null".to_owned());
            }
            shuffle(&mut members, dice);
            format!("{{{}}}", members.join(","))
        })
        .collect();
    members.push(format!(
        "\"orders\":[{}]",
        orders.join(if pretty { ",\n    " } else { "," })
    ));
    shuffle(&mut members, dice);
    if pretty {
        format!("{{\n  {}\n}}", members.join(",\n  ").replace("\":", "\": "))
    } else {
        format!("{{{}}}", members.join(","))
    }
}

fn shuffle(members: &mut [String], dice: &mut Dice) {
    for at in (1..members.len()).rev() {
        members.swap(at, dice.roll(at + 1));
    }
}

pub const PATHS: [&str; 6] = [
    "$..ssn",
    "$..email",
    "$..phone",
    "$..cards[*].number",
    "$..passport",
    "$..iban",
];

/// 997 bodies of about 2 KB with 7 fields each, and one of about 1 MB with 3,584.
pub fn bodies() -> (Vec<String>, String) {
    let mut dice = Dice(0x5EED);
    let small = (0..997).map(|_| customer(&mut dice)).collect();
    let large: Vec<String> = (0..512).map(|_| customer(&mut dice)).collect();
    (small, format!("[{}]", large.join(",\n")))
}
