"""Seeds that have found a fault, and which one, in worlds of this length. A change of what is drawn
makes other worlds of them."""

SCALE = (120.0, 600.0)
KEPT = {
    3: "doors that start together created a project each, and did not see each other's orders",
    46: "a machine that was lost before its instance served kept its route from being served",
    86: "after an outage an instance that was starting was ordered again",
    1122: "as 46, with one agent",
    2126: "a request that instances had had twice was sent to a third one",
    3107: "a caller was not told why it had waited in vain",
}
