module drip

go 1.22
