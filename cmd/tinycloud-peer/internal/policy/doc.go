// Package policy asks other services about a Space: how much it may hold ([Quota]), and whether it may be
// hosted at all ([Allowlist]).
//
// The services are the operator's choice, not to be trusted with more than their answer: an answer is bounded in
// size and time, redirects are not followed, and what is remembered is bounded. Of each Space one question is
// under way at a time, however many wait for its answer; questions end with Close.
package policy
