import { Body, Controller, Injectable, Post, UseGuards } from '@nestjs/common';
import { JwtModule, JwtService } from '@nestjs/jwt';
import { AuthGuard, PassportModule, PassportStrategy } from '@nestjs/passport';
import { clientFromUser, Idempotent } from 'nestjs-pg-idempotency';
import passportJwt from 'passport-jwt';
import { Effects, run, type Effect, type NamedBody } from './base.js';

const { ExtractJwt, Strategy } = passportJwt;
const secret = 'of the tests';

interface User {
  readonly id: string;
}

@Injectable()
class JwtStrategy extends PassportStrategy(Strategy) {
  constructor() {
    super({ jwtFromRequest: ExtractJwt.fromAuthHeaderAsBearerToken(), secretOrKey: secret });
  }

  validate({ sub }: { sub: string }): User {
    return { id: sub };
  }
}

@Controller()
class JwtController {
  constructor(
    private readonly effects: Effects,
    private readonly tokens: JwtService,
  ) {}

  @Post('effects')
  @UseGuards(AuthGuard('jwt'))
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }

  /** Logs in, so to speak. No two tokens are alike. */
  @Post('tokens')
  token(@Body() { name }: NamedBody): { token: string } {
    return { token: this.tokens.sign({ sub: name }, { jwtid: String(process.hrtime.bigint()) }) };
  }
}

run({
  imports: [PassportModule, JwtModule.register({ secret, signOptions: { expiresIn: '1h' } })],
  controllers: [JwtController],
  providers: [JwtStrategy],
  idempotency: { client: clientFromUser(({ id }: User) => id) },
});
